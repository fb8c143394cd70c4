"""A reward that nobody earns at first: two such iterations are borne, three end the run."""

import pytest

from lora_detox.api import run
from lora_detox.errors import DivergenceError, SettingsError
from tests.runs import SMOKE

REWARD = """
calls = []
def reward(prompts, completions, **columns):
    calls.append(1)
    earned = len(calls) > {first}
    return [float(earned and index % 2) for index in range(len(completions))]
"""


def options(tmp_path, first):
    (tmp_path / "sparse.py").write_text(REWARD.format(first=first))
    return [
        *SMOKE,
        "task=gptj_continuation",
        "algorithm=rloo",
        "algorithm.iterations=4",
        "budget=off",
        "guard=off",
        "evaluation.every=4",
        "evaluation.validation_prompts=4",
        "evaluation.test_prompts=4",
        "evaluation.resamples=20",
        f"reward.function={tmp_path}/sparse.py:reward",
        "reward.probe=false",
        "reward.length_debias=false",
    ]


@pytest.mark.training
def test_a_reward_that_is_earned_late_does_not_end_the_run(tmp_path, capsys):
    # the evaluations of the start are two calls
    summary = run(options(tmp_path, first=2 + 2), tmp_path / "run")
    assert summary["iterations"] == 4
    lines = capsys.readouterr().out
    for iteration in (1, 2):
        assert f"iteration {iteration}: equal scores (mean 0), so nothing was learned" in lines
    assert "iteration 3: equal scores" not in lines


@pytest.mark.training
def test_three_iterations_without_any_end_it_with_what_to_do(tmp_path):
    ended = r"first 3 iterations .* equal scores .*; raise .*responses_per_prompt"
    with pytest.raises(DivergenceError, match=ended):
        run(options(tmp_path, first=100), tmp_path / "run")


def test_a_time_limit_needs_a_function(tmp_path):
    with pytest.raises(SettingsError, match=r"reward.timeout: got 5, but only a Python function"):
        run([*SMOKE, "task=gptj_continuation", "reward.timeout=5"], tmp_path / "run")
    with pytest.raises(SettingsError, match=r"reward.timeout: got 0.0, want a number above 0"):
        run([*SMOKE, "task=gptj_continuation", "reward.timeout=0"], tmp_path / "run")
