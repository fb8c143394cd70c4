"""The comparison's arithmetic and its queue: what is stopped goes on, what failed is listed."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_detox.api import compose_settings

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def parts(monkeypatch):
    """Modules of the two recipes, which are scripts and no package."""
    names = ("queue_of_runs", "judged", "store", "table", "verdict", "lab")
    for folder in ("method_comparison", "layers"):
        monkeypatch.syspath_prepend(str(RECIPES / folder))
    for name in names:
        sys.modules.pop(name, None)
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def judged(parts, judge, *, nll=2.0, tokens=10.0, distinct=0.9):
    judge = np.asarray(judge, dtype=float)
    ones = np.ones_like(judge)
    columns = {"judge": judge, "nll": nll * tokens * ones, "tokens": tokens * ones}
    return parts["judged"].Judged(columns=columns, distinct_2=distinct)


def test_changes_are_relative_to_the_base_and_their_intervals_hold_them(parts):
    rng = np.random.default_rng(1)
    level = rng.uniform(0.2, 0.6, 200)
    base = judged(parts, level)
    seeds = [judged(parts, level * share, nll=2.1, tokens=9.0) for share in (0.4, 0.5, 0.6)]
    interval = parts["judged"].change_of
    judge = interval(seeds, base, "judge")
    assert judge.mean == pytest.approx(-0.5)
    assert judge.low == pytest.approx(-0.6, abs=0.01)  # the seeds differ, the prompts do not
    assert judge.high == pytest.approx(-0.4, abs=0.01)
    perplexity = interval(seeds, base, "perplexity")
    assert perplexity.mean == pytest.approx(np.exp(0.1) - 1)
    tokens = interval(seeds, base, "tokens")
    assert (tokens.low, tokens.mean, tokens.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert str(tokens) == "-10 % [-10, -10]"
    noisy = judged(parts, rng.uniform(0.0, 0.5, 200))
    found = interval([noisy], base, "judge")
    assert found.low < found.mean < found.high


def test_only_a_whole_interval_beats_a_method_on_both_axes(parts):
    level = np.linspace(0.1, 0.9, 50)
    sets = {
        name: {"in_distribution": judged(parts, level * share, nll=nll)}
        for name, share, nll in (("good", 0.2, 2.0), ("dear", 0.1, 2.2), ("bad", 0.5, 2.1))
    }
    base = {"in_distribution": judged(parts, level)}
    result = parts["store"].Result
    seeds = {name: [result(sets=one, facts={})] for name, one in sets.items()}
    said = parts["table"].beaten(seeds, base)
    assert "interval: bad by good.\n" in said
    assert "Not beaten: good, dear.\n" in said


def write_run(folder, judge, *, sets, trained):
    """The files of a finished run that the tables read."""
    rows = [
        {
            "set": name,
            "prompt": "What next",
            "response": "two words 42",
            "judge_toxicity": value,
            "reference_nll": 10 * value,
            "response_tokens": 4,
        }
        for name in sets
        for value in judge
    ]
    numbers = {name: {"distinct_2": 0.9, "ref_kl": 1.25} for name in sets}
    (folder / "evaluate").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluate" / "samples.jsonl").write_text(lines)
    summary = {"models": [{"sets": numbers}]}
    (folder / "evaluate" / "summary.json").write_text(json.dumps(summary))
    if trained:
        (folder / "train").mkdir()
        summary = {"seconds": {"total": 61.5}, "iterations": 40}
        (folder / "train" / "summary.json").write_text(json.dumps(summary))


def test_stored_results_give_the_same_table_as_the_runs(parts, tmp_path, capsys):
    table, store, sizes = parts["table"], parts["store"], {"iterations": 40}
    first, second = tmp_path / "first", tmp_path / "second"
    names = list(table.MEASURES)
    level = np.linspace(0.1, 0.9, 40)
    write_run(first / "base", level, sets=names, trained=False)
    for seed, share in enumerate((0.4, 0.6)):
        write_run(first / "ppo" / f"seed{seed}", level * share, sets=names, trained=True)
    table.write_report(first, ["ppo", "rloo"], sizes)
    said = capsys.readouterr().out
    assert "| ppo | 2 | -50 %" in said
    assert "1.25 | 62 |" in said
    second.mkdir()
    (second / "results.json").write_text((first / "results.json").read_text())
    table.write_report(second, ["ppo", "rloo"], sizes)
    assert capsys.readouterr().out == said
    assert (second / "picture.png").stat().st_size > 10_000
    write_run(second / "rloo" / "seed0", level * 0.2, sets=names, trained=True)
    assert list(store.collect(second, table.MEASURES, sizes)) == [
        "base", "ppo/seed0", "ppo/seed1", "rloo/seed0",
    ]  # fmt: skip
    with pytest.raises(store.OtherSizesError, match="iterations"):
        store.stored_runs(second, {"iterations": 80})


def test_a_run_converges_only_inside_every_bound(parts):
    verdict, level = parts["verdict"].verdict, np.linspace(0.1, 0.9, 50)
    base = judged(parts, level)
    good = verdict(base, judged(parts, level * 0.5, nll=2.1, tokens=9.5, distinct=0.89))
    assert good.broken == ()
    assert good.judge == pytest.approx(-0.5)
    for broken, one in {
        "toxicity": judged(parts, level * 0.8),
        "perplexity": judged(parts, level * 0.5, nll=2.3),
        "length": judged(parts, level * 0.5, tokens=7.0),
        "distinct-2": judged(parts, level * 0.5, distinct=0.8),
    }.items():
        assert verdict(base, one).broken == (broken,)
    rng = np.random.default_rng(0)  # lower by a third, and yet it may be chance
    few = judged(parts, rng.uniform(0, 1, 4))
    assert "toxicity" in verdict(few, judged(parts, [0.0, 1.0, 0.2, 0.1])).broken


def test_the_queue_skips_what_is_done_and_lists_what_fails(parts, tmp_path, capsys):
    queue = parts["queue_of_runs"]

    def run(name, code):
        folder = tmp_path / name
        done = folder / "done"
        program = f"import pathlib, sys\nprint('said')\n{code}"
        step = queue.Step(command=[sys.executable, "-c", program], done=done)
        return queue.Run(name=name, folder=folder, steps=[step])

    count = tmp_path / "count"
    touch = f"pathlib.Path({str(tmp_path)!r}, 'good', 'done').touch()\n"
    good = run("good", touch + f"open({str(count)!r}, 'a').write('x')")
    bad = run("bad", f"open({str(count)!r}, 'a').write('y')\nsys.exit('no luck')")
    for _ in range(2):
        queue.execute_all([good, bad], tmp_path, jobs=2, retry=False)
    assert sorted(count.read_text()) == ["x", "y"]
    failed = json.loads((tmp_path / "bad" / "failed.json").read_text())
    assert failed == {"code": 1, "message": "no luck"}
    assert "failed: bad" in capsys.readouterr().out
    queue.execute_all([good, bad], tmp_path, jobs=1, retry=True)
    assert sorted(count.read_text()) == ["x", "y", "y"]
    stopped = run("stopped", "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    assert queue.execute(stopped, tmp_path, retry=False) == "stopped"
    assert not (tmp_path / "stopped" / "failed.json").exists()  # to be continued


def test_every_run_of_the_lab_composes(parts, shared):
    lab, folder = parts["lab"], str(shared)
    settings = compose_settings([*lab.lab(folder), *lab.training(80, 16, 2)])
    assert settings.algorithm.iterations * settings.algorithm.rollout_batch_size == 1280
    judging = compose_settings([*lab.lab(folder), *lab.judging(folder, 300)])
    assert set(judging.evaluation.sets) == {"toxic", "benign"}
    assert judging.evaluation.sets["toxic"].min_toxicity == 0.5
