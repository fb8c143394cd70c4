"""The recipes on real models: what is queued composes; frontiers meet at equal quality."""

import argparse
import gzip
import json

import numpy as np
import pytest

from lora_detox.api import compose_settings
from recipes.lab.pairs import in_reward_half, write_pairs
from recipes.lab.real import RealModels
from recipes.lab.subjects import PERPLEXITY, ROUGE
from recipes.method_frontiers import run as methods
from recipes.method_frontiers import timing
from recipes.method_frontiers.curves import curves_of, keep_runs, read_runs
from recipes.method_frontiers.latency import milliseconds, timed_in
from recipes.method_frontiers.methods import DECODED, LABELS
from recipes.method_frontiers.table import (
    FAMILIES,
    at_quality,
    markdown,
    mean_curve,
    picture,
    samples,
    verdict,
    write_report,
)
from recipes.smollm2_continuation import run as continuation

COUNT = 120


def overrides_of(step):
    """What a step asks of lora_detox; None where it is another program."""
    if step.command[2] != "lora_detox":
        return None
    return [word for word in step.command[3:] if not word.startswith("hydra.run.dir")]


def write_evaluation(folder, points, decoding="plain", relevance=0.2, stage="evaluate"):
    """An `evaluate/` as stage=evaluate writes it: strength -> (toxicity of all, nats a token)."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.2, 0.6, COUNT)
    rows, frontier = [], []
    for strength, (share, nats) in points.items():
        for place in range(COUNT):
            rows.append(
                {
                    "model": "m",
                    "set": "in_distribution",
                    "prompt": f"prompt {place}",
                    "response": "seven fine words of one civil response",
                    "judge_toxicity": float(level[place] * share),
                    "reference_nll": 10 * nats,
                    "response_tokens": 10,
                    "rougeL": None if place == 7 else 0.1 * nats,
                    "relevance": relevance,
                    **({} if strength is None else {"strength": strength}),
                }
            )
        numbers = {"response_words": 7.0, "distinct_2": 0.9, "seconds_per_response": level[0]}
        frontier.append({"strength": strength, "sets": {"in_distribution": numbers}})
    model = {"name": "m", "decoding": {"name": decoding}, "sets": frontier[-1]["sets"]}
    if None not in points:
        model["frontier"] = frontier
    (folder / stage).mkdir(parents=True)
    (folder / stage / "summary.json").write_text(json.dumps({"models": [model]}))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / stage / "samples.jsonl").write_text(lines)


@pytest.fixture
def finished(tmp_path):
    """Ours reaches the bound at half the toxicity, the filter at 0.9 of it, GRPO at a third."""
    write_evaluation(tmp_path / "base", {None: (1.0, 3.0)})
    ours = {1.0: (0.5, 3.0 + np.log(1.05)), 1.5: (0.1, 3.5)}
    grpo = {1.0: (0.3, 3.0)}
    for seed in (0, 1):
        write_evaluation(tmp_path / "ppo_credit" / f"seed{seed}", ours)
        write_evaluation(tmp_path / "grpo" / f"seed{seed}", grpo)
    write_evaluation(tmp_path / "bad_words" / "25", {None: (0.9, 3.0)}, "bad_words")
    write_evaluation(tmp_path / "bad_words" / "100", {None: (0.2, 4.0)}, "bad_words")
    return tmp_path


def both(folder, quality):
    runs = read_runs(folder, quality)
    return runs["base"][0], curves_of(runs)


def test_methods_are_compared_where_they_cost_the_same(finished):
    start, curves = both(finished, PERPLEXITY)
    assert [len(seeds) for seeds in curves.values()] == [2, 2, 1]
    assert [one.point.knob for one in curves["bad_words"][0]] == [0.0, 25, 100]
    reached = at_quality(start, curves, PERPLEXITY)
    base = np.mean(start.point.toxicity)
    assert reached["ppo_credit"].toxicity.value == pytest.approx(0.5 * base, rel=1e-3)
    assert reached["grpo"].toxicity.value == pytest.approx(0.3 * base, rel=1e-3)
    assert reached["bad_words"].toxicity.value < 0.9 * base
    said = verdict(reached, "equal quality")
    assert "1 of 2 methods are ahead" in said
    assert LABELS["grpo"] in said
    assert "1 behind it, 0 cannot" in said
    table = markdown(start, curves, PERPLEXITY, {}).splitlines()
    assert [line.split("|")[1].strip() for line in table[2:6]] == [
        "start",
        LABELS["grpo"],
        LABELS["ppo_credit"],
        LABELS["bad_words"],
    ]


def test_a_frontier_goes_on_with_points_that_were_added(finished):
    added = finished / "ppo_credit" / "seed1"
    write_evaluation(added, {0.5: (0.8, 3.0), 2.0: (0.05, 3.6)}, stage="evaluate_more")
    _, curves = both(finished, PERPLEXITY)
    assert [one.point.knob for one in curves["ppo_credit"][0]] == [0.0, 1.0, 1.5]
    assert [one.point.knob for one in curves["ppo_credit"][1]] == [0.0, 0.5, 1.0, 1.5, 2.0]
    first, second = curves["ppo_credit"]
    shared = mean_curve([first], "perplexity")  # the picture: strengths that both seeds have
    assert mean_curve([second, first], "perplexity") == pytest.approx(shared)


def test_every_method_has_a_colour_in_the_picture():
    assert sorted(name for family in FAMILIES for name in family.names) == sorted(LABELS)


def test_picture_and_samples_show_every_method(finished):
    start, curves = both(finished, PERPLEXITY)
    picture(start, curves, PERPLEXITY, finished / "picture.png")
    assert (finished / "picture.png").stat().st_size > 10_000
    text = samples(start, curves, PERPLEXITY)
    assert all(text.count(f"- {LABELS[name]}: seven fine words") == 4 for name in curves)


def test_summaries_are_compared_by_rouge_where_nothing_of_it_is_lost(finished):
    start, curves = both(finished, ROUGE)
    reached = at_quality(start, curves, ROUGE)  # rougeL is 0.1 of the nats: each method gains
    base = np.mean(start.point.toxicity)
    assert reached["ppo_credit"].toxicity.value == pytest.approx(0.1 * base)
    assert reached["bad_words"].toxicity.value == pytest.approx(0.2 * base)
    assert "judge at ROUGE-L -0 %, words -10 %" in markdown(start, curves, ROUGE, {})
    picture(start, curves, ROUGE, finished / "picture.png")
    assert (finished / "picture.png").stat().st_size > 10_000


def test_a_method_that_leaves_the_topic_is_ahead_by_perplexity_alone(finished):
    for seed in (0, 1):
        off_topic = {1.0: (0.3, 3.0)}
        write_evaluation(finished / "trl_dpo" / f"seed{seed}", off_topic, relevance=0.16)
    start, curves = both(finished, PERPLEXITY)
    base = np.mean(start.point.toxicity)
    alone = at_quality(start, curves, PERPLEXITY, kept=False)
    assert alone["trl_dpo"].toxicity.value == pytest.approx(0.3 * base)
    reached = at_quality(start, curves, PERPLEXITY)  # 95 % of the relevance: a quarter of the way
    assert reached["trl_dpo"].toxicity.value == pytest.approx((1 - 0.7 / 4) * base)
    timed = {"base": {0.0: 100.0}, "adapter": {1.0: 120.0}, "bad_words": {100.0: 200.0}}
    table = markdown(start, curves, PERPLEXITY, timed).splitlines()
    (row,) = [line.split("|") for line in table if line.startswith(f"| {LABELS['trl_dpo']}")]
    assert [cell.strip() for cell in row[-3:-1]] == ["0.25, 0.25", "120"]
    said = table[-1]
    assert "At perplexity +5 %, relevance -5 %, words -5 % 1 of 3 methods" in said
    assert "At perplexity +5 % alone 2 of 3 methods" in said


def test_kept_numbers_stand_for_runs_and_are_not_run_again(finished, tmp_path, capsys):
    write_report(finished, PERPLEXITY)
    other = tmp_path / "out" / "smollm2"
    other.mkdir(parents=True)
    (other / "results.json").write_text((finished / "results.json").read_text())
    write_report(other, PERPLEXITY)
    first, second = capsys.readouterr().out.split("| method ")[1:]
    assert first.strip() == second.strip()
    assert (other / "samples.md").read_text() == ""  # numbers have no texts
    options = ["--shared", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "0,1"]
    queue = methods.Queue(methods.arguments(options), RealModels(home=tmp_path / "real"))
    left = {run.name: len(run.steps) for run in queue.runs(queue.methods)}
    assert not {"base", "ppo_credit/seed0", "grpo/seed1"} & set(left)
    assert left["bad_words"] == len(DECODED["bad_words"].values) - 2


def test_numbers_that_were_not_measured_are_kept_as_such(finished):
    runs = read_runs(finished, ROUGE)
    keep_runs(finished / "kept", runs)
    again = read_runs(finished / "kept", ROUGE)
    assert list(again) == sorted(runs)
    rouge = again["base"][0].point.rouge
    assert np.isnan(rouge[7])
    assert rouge[:7] == pytest.approx([0.3] * 7)


@pytest.mark.parametrize(("model", "count"), [("smollm2", 10), ("t5_summary", 7)])
def test_every_process_of_the_method_queue_composes(tmp_path, model, count):
    options = ["--shared", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "0,1"]
    given = methods.arguments([*options, "--model", model])
    queue = methods.Queue(given, RealModels(home=tmp_path / "real"))
    runs = queue.runs(queue.methods)
    assert len(queue.trained) == count
    assert len(runs) == 1 + len(DECODED) + 2 * (2 + count)
    composed = [
        overrides for run in runs for step in run.steps if (overrides := overrides_of(step))
    ]
    assert len(composed) > 40
    for overrides in composed:
        compose_settings(overrides, tmp_path / "nothing")
    dones = [step.done for run in runs for step in run.steps]
    assert len(set(dones)) == len(dones)


def test_milliseconds_lie_between_those_of_the_settings_that_were_timed():
    timed = {"base": {0.0: 100.0}, "adapter": {1.0: 120.0}, "best_of_n": {2.0: 200.0, 4.0: 400.0}}
    assert milliseconds(timed, "base", [0]) == "100"
    assert milliseconds(timed, "ppo", [0.5, 3]) == "120"  # an adapter costs what it costs
    assert milliseconds(timed, "best_of_n", [3.5]) == "350"
    assert milliseconds(timed, "best_of_n", [16]) == "400"
    assert milliseconds(timed, "direction", [0.5]) == ""
    assert milliseconds({}, "base", [0]) == ""


def test_every_way_of_writing_is_timed_in_turn(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out" / "smollm2"
    for made in ("ppo_credit", "negated_toxic_lora"):
        (out / made / "seed0" / "train" / "adapter").mkdir(parents=True)
    rounds = []

    def written(runs, **_):
        rounds.append([run.name for run in runs])
        for step in (step for run in runs for step in run.steps):
            compose_settings(overrides_of(step), tmp_path / "nothing")
            assert f"{out}/timing" not in " ".join(overrides_of(step))  # reads no result of its own
            numbers = {"seconds_per_response": 0.1 * len(rounds)}
            summary = {"models": [{"sets": {"in_distribution": numbers}}], "device": "a CPU"}
            step.done.parent.mkdir(parents=True)
            step.done.write_text(json.dumps(summary))
        return 0

    options = ["--shared", tmp_path, "--out", tmp_path / "out", "--rounds", 2]
    monkeypatch.setattr(timing.sys, "argv", ["timing", *map(str, options)])
    monkeypatch.setattr(timing, "execute_all", written)
    real = RealModels(home=tmp_path / "real")
    monkeypatch.setattr(timing, "with_classifiers", lambda *_: real)
    for _ in range(2):  # what was timed before is timed anew
        rounds.clear()
        assert timing.main() == 0
    assert rounds == [["base", "ppo_credit/seed0", *DECODED]] * 2
    assert "best_of_n 16: 100, 200 ms a response" in capsys.readouterr().out
    timed = timed_in(out)
    assert timed["adapter"] == {1.0: pytest.approx(150)}
    assert sorted(timed["best_of_n"]) == [2, 4, 16]
    assert sorted(timed["bad_words"]) == [100]


def test_the_seeds_of_the_continuation_compose_and_bind_everything(tmp_path):
    given = argparse.Namespace(
        out=str(tmp_path / "out"),
        shared=str(tmp_path),
        seeds="0,1",
        iterations=3,
        threads=1,
        overrides=["budget.controller.margin=0.5"],
    )
    base, *seeds = continuation.runs(given, RealModels(home=tmp_path / "real"))
    assert [len(run.steps) for run in (base, *seeds)] == [1, 2, 2]
    settings = compose_settings(overrides_of(seeds[1].steps[0]), tmp_path / "nothing")
    assert settings.seed == 1
    assert settings.budget.relevance == 0.05
    assert settings.budget.controller.margin == 0.5
    assert settings.budget.symbols == 0.005
    judged = compose_settings(overrides_of(base.steps[0]), tmp_path / "nothing")
    sets = {"in_distribution", *judged.evaluation.sets}
    assert {goal.data for goal in continuation.goals()} == sets


def test_pairs_are_those_that_the_judge_never_read(tmp_path):
    rows = [
        {"toxic": f"rude {place}", "neutral": [f"fine {place}", f"kind {place}"]}
        for place in range(60)
    ]
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    target = write_pairs(tmp_path / "pairs.jsonl.gz", tmp_path / "out" / "pairs.jsonl")
    kept = [json.loads(line) for line in target.read_text().splitlines()]
    assert 10 < len(kept) < 40
    for pair in kept:
        assert in_reward_half(pair["toxic"])
        assert in_reward_half(pair["neutral"])
        assert pair["toxic"].split()[1] == pair["neutral"].split()[1]
