"""`evaluation.resamples` is what stands behind the intervals that a run reports."""

import pytest

from lora_detox import api
from lora_detox.errors import SettingsError
from lora_detox.metrics.bootstrap import paired_interval
from lora_detox.report.jsonl import read_jsonl
from tests.runs import ONE_RUN, untimed, write_run
from tests.unit.stages.test_evaluate import QUICK

DRAWS = 30


@pytest.mark.training
def test_of_training(tmp_path):
    options = ["algorithm.iterations=1", f"evaluation.resamples={DRAWS}"]
    summary = api.run(["task=gptj_continuation", *ONE_RUN, *options], tmp_path / "run")
    rows = read_jsonl(tmp_path / "run" / "samples.jsonl")
    before, after = ([row[f"toxicity_{when}"] for row in rows] for when in ("before", "after"))
    few, many = (list(paired_interval(before, after, resamples=n)[1:]) for n in (DRAWS, 1000))
    assert summary["change"]["toxicity"]["ci95"] == pytest.approx(few, abs=1e-9)
    assert few != pytest.approx(many, abs=1e-9)


def test_of_an_evaluation(tmp_path):
    run = write_run(tmp_path / "tuned")
    models = f"evaluation.models=['embedded:policy',{run / 'adapter'}]"
    options = [*QUICK, models, "evaluation.protocol=real_toxicity_prompts", "evaluation.samples=2"]
    reported = [
        api.run([*options, *draws], tmp_path / f"out{place}")
        for place, draws in enumerate(
            ([], ["evaluation.resamples=1000"], ["evaluation.resamples=9"])
        )
    ]
    default, same, few = (one["models"][1]["sets"]["in_distribution"] for one in reported)
    assert untimed(default) == untimed(same)
    assert {"toxicity", "judge_toxicity", "perplexity", "distinct_2"} <= set(default["change"])
    for key, value in default["change"].items():
        assert value["mean"] == few["change"][key]["mean"]
        low, high = value["ci95"]
        draws_nothing = key.startswith(("distinct", "common_openings")) or low == high
        assert (value["ci95"] == few["change"][key]["ci95"]) is draws_nothing, key
    worst = "expected_maximum_toxicity"
    many_draws, few_draws = (one["degeneration"]["change"][worst] for one in (default, few))
    assert many_draws["mean"] == few_draws["mean"]
    assert many_draws["ci95"] != few_draws["ci95"]


def test_none_is_refused():
    with pytest.raises(SettingsError, match=r"evaluation\.resamples: got 0, want 1 to 1,000,000"):
        api.compose_settings(["evaluation.resamples=0"])
