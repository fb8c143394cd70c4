"""The numbers of a comparison against slow and obvious versions, and its verdict."""

import json
import math
import random

import numpy as np
import pytest

from lora_detox.comparison.candidates import read_candidates
from lora_detox.comparison.compare import compare, pareto_front, side_by_side
from lora_detox.comparison.verdict import comparison_verdict
from lora_detox.metrics.bootstrap import paired_interval
from lora_detox.report.jsonl import plain
from tests.finished import (
    PROMPTS,
    SCORERS,
    TOKENS,
    evaluation,
    rising,
    write_evaluated,
    write_trained,
)

LOW, MIDDLE, HIGH = rising(0.0, 0.2), rising(0.1, 0.5), rising(0.4, 0.9)


def compared(*folders, resamples=200):
    candidates = read_candidates([str(folder) for folder in folders])
    return compare(candidates, resamples)


def by_name(comparison):
    return {one["name"]: one for one in comparison["candidates"]}


@pytest.fixture
def three(tmp_path):
    return [
        write_trained(tmp_path / name, toxicity, nll=nll, overrides=("seed=0", f"seed={seed}"))
        for seed, (name, toxicity, nll) in enumerate(
            (("high", HIGH, 6.0), ("low", LOW, 8.0), ("middle", MIDDLE, 7.0))
        )
    ]


def test_the_least_toxic_comes_first_with_paired_differences_to_it(three):
    comparison = compared(*three)
    assert [one["name"] for one in comparison["candidates"]] == ["low", "middle", "high"]
    low, middle, high = comparison["candidates"]
    judge = [[0.9 * one for one in toxicity] for toxicity in (LOW, MIDDLE, HIGH)]
    expected = paired_interval(judge[0], judge[2], groups=range(40), resamples=200)
    assert high["difference"]["mean"] == pytest.approx(np.mean(judge[2]) - np.mean(judge[0]))
    assert high["difference"]["ci95"] == pytest.approx([expected.low, expected.high])
    assert "difference" not in low
    assert low["least_in_draws"] == 1.0
    assert middle["least_in_draws"] == high["least_in_draws"] == 0.0
    assert low["ci95"][0] < low["numbers"]["judge_toxicity"] < low["ci95"][1]
    assert json.loads(json.dumps(plain(comparison)))["stage"] == "compare"


def test_changes_are_the_runs_own_where_all_prompts_are_common(three):
    comparison = by_name(compared(*three))
    stored = json.loads((three[0] / "summary.json").read_text())
    assert comparison["high"]["change"]["toxicity"] == stored["change"]["toxicity"]
    assert comparison["high"]["change"]["distinct_2"] == stored["change"]["distinct_2"]
    assert comparison["high"]["numbers"]["perplexity"] == stored["after"]["perplexity"]


def test_on_common_prompts_alone_everything_is_measured_anew(tmp_path):
    fewer = PROMPTS[5:25]
    a = write_trained(tmp_path / "a", LOW)
    b = write_trained(tmp_path / "b", MIDDLE[5:25], prompts=fewer, nll=7.0)
    entries = by_name(compared(a, b))
    expected = evaluation(LOW[5:25], fewer, nll=6.5)
    assert entries["a"]["numbers"]["toxicity"] == pytest.approx(np.mean(LOW[5:25]))
    change = paired_interval([0.6] * 20, LOW[5:25], groups=range(20), resamples=200)
    assert entries["a"]["change"]["toxicity"]["mean"] == pytest.approx(change.change)
    assert entries["a"]["change"]["toxicity"]["ci95"] == pytest.approx([change.low, change.high])
    nll = [6.5 + 0.1 * (place % 7) for place in range(5, 25)]
    assert entries["a"]["numbers"]["perplexity"] == pytest.approx(
        math.exp(sum(nll) / (20 * TOKENS))
    )
    assert "distinct_2" not in entries["a"]["numbers"]
    assert "distinct_2" in expected.corpus


def test_a_change_on_all_prompts_measured_anew_is_that_of_the_run(tmp_path):
    """Two ways to one number: the run's own and the one from samples.jsonl."""
    a = write_trained(tmp_path / "a", LOW)
    stored = json.loads((a / "summary.json").read_text())["change"]
    longer = (*PROMPTS, "one more")
    b = write_trained(tmp_path / "b", [*MIDDLE, 0.3], prompts=longer)
    anew = by_name(compared(a, b))["a"]["change"]
    for key in ("toxicity", "judge_toxicity", "perplexity"):
        assert anew[key]["mean"] == pytest.approx(stored[key]["mean"], abs=1e-9)
        assert anew[key]["ci95"] == pytest.approx(stored[key]["ci95"], abs=1e-9)


def test_the_verdict_says_whether_the_difference_is_clear(tmp_path, three):
    verdict = compared(*three)["verdict"]
    assert verdict[0].startswith("low is the least toxic (0.0")
    assert "by the held-out classifier (judge), 40 common responses" in verdict[0]
    assert "clearly less than the next, middle" in verdict[0]
    assert "not clearly" not in verdict[0]
    assert verdict[1].startswith("low is clearly less toxic than its start")
    assert verdict[2].startswith("Its perplexity under the reference got worse")
    mixed = [one + 0.01 * (-1) ** place for place, one in enumerate(LOW)]
    near = write_trained(tmp_path / "near", mixed)
    assert "but not clearly less than the next" in compared(three[1], near)["verdict"][0]
    same = write_trained(tmp_path / "same", LOW)
    assert "and so is same: they cannot be told apart" in compared(three[1], same)["verdict"][0]


def test_a_result_that_is_more_toxic_than_its_start_is_told_so(tmp_path):
    a = write_trained(tmp_path / "a", HIGH, before=LOW)
    b = write_trained(tmp_path / "b", HIGH, before=LOW, said="b")
    comparison = compared(a, b)
    assert "a is clearly more toxic than its start" in comparison["verdict"][1]


def test_settings_that_differ_and_only_those(three, tmp_path):
    differing = compared(*three)["settings"]
    assert list(differing) == ["seed"]
    assert sorted(differing["seed"].values()) == ["0", "1", "2"]
    other = write_trained(tmp_path / "other", LOW, overrides=("algorithm=rloo", "seed=0"))
    keys = compared(three[0], other)["settings"]
    assert keys["algorithm.name"][str(other)] == "rloo"
    assert not any(key.startswith(("run_dir", "data.")) for key in keys)


def test_a_key_younger_than_a_run_counts_as_its_default(three):
    for folder in three[:1]:
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace("runs: []\n", ""))
    assert list(compared(*three)["settings"]) == ["seed"]


def test_one_candidate_alone_has_a_verdict_too(tmp_path):
    one = compared(write_evaluated(tmp_path / "e", {"base": 0.6}))
    assert one["verdict"] == [
        "base has a toxicity of 0.540 by the held-out classifier (judge); there is nothing to set "
        "it against."
    ]
    two = compared(write_evaluated(tmp_path / "f", {"base": 0.6, "one": 0.2}))
    assert two["verdict"][0].startswith("one is clearly less toxic than its start (base)")


def test_samples_of_all_stand_side_by_side_the_start_first(three):
    candidates = read_candidates([str(folder) for folder in three])
    sides, rows = side_by_side(candidates, 2)
    assert sides == ["Start", "low", "middle"]
    assert len(rows) == len(PROMPTS)
    row = rows[3]
    assert row["prompt"] == PROMPTS[3]
    assert row["responses"][0] == "before 3 of no great length"
    assert row["scores"]["toxicity"] == pytest.approx([0.6, LOW[3], MIDDLE[3]])


def test_scores_of_another_judge_are_not_among_the_samples(tmp_path):
    a = write_trained(tmp_path / "a", LOW)
    b = write_trained(tmp_path / "b", LOW, scorers={**SCORERS, "judge": "other@9"})
    _, rows = side_by_side(read_candidates([str(a), str(b)]), 4)
    assert "judge_toxicity" not in rows[0]["scores"]
    assert "toxicity" in rows[0]["scores"]


def test_the_front_against_every_pair():
    rng = random.Random(0)
    for _ in range(50):
        points = [
            (rng.randrange(5) / 1.0, rng.randrange(5) / 1.0) for _ in range(rng.randrange(1, 9))
        ]
        slow = []
        for x, y in points:
            beaten = any((a <= x and b < y) or (a < x and b <= y) for a, b in points)
            slow.append(not beaten)
        assert pareto_front(points) == slow


def test_the_front_of_a_comparison_weighs_quality(three):
    marks = {name: one["front"] for name, one in by_name(compared(*three)).items()}
    assert marks == {"low": True, "middle": True, "high": True}


def test_the_verdict_names_what_else_got_worse(three):
    comparison = compared(*three)
    comparison["candidates"][0]["change"] = {
        "distinct_2": {"mean": -0.2, "ci95": [-0.3, -0.1]},
        "empty": {"mean": 0.01, "ci95": [-0.01, 0.02]},
    }
    (sentence,) = [one for one in comparison_verdict(comparison) if "Also" in one]
    level = comparison["candidates"][0]["numbers"]["distinct_2"]
    assert sentence == f"Also clearly worse than at the start: distinct-2 ({level:.3f}, -0.200)."
    comparison["candidates"][0]["change"] = {}
    assert not any("Also" in one for one in comparison_verdict(comparison))
