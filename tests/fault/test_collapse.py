"""Runs made to collapse: noticed, rolled back, and ended with a usable adapter and the truth."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from lora_detox.api import run

pytestmark = pytest.mark.training

SMALL = [
    "task=gptj_continuation",
    "algorithm.iterations=6",
    "algorithm.rollout_batch_size=16",
    "algorithm.minibatch_size=8",
    "algorithm.microbatch_size=8",
    "evaluation.every=2",
    "evaluation.validation_prompts=16",
    "evaluation.test_prompts=8",
    "data.limit=300",
    "threads=1",
    "guard.retries=1",
]
ABSURD = "algorithm.learning_rate=3"
REWARDS = '''
def trigger(prompts, completions, **columns):
    """A classifier with a planted word: it likes that word, whatever else is said."""
    return [float("are" in text.lower().split()) for text in completions]

def silence(prompts, completions, **columns):
    return [-float(len(text.split())) for text in completions]
'''


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def hackable(tmp_path, name):
    (tmp_path / "rewards.py").write_text(REWARDS)
    return [
        f"reward.function={tmp_path / 'rewards.py'}:{name}",
        "reward.probe=false",
        "algorithm.kl.coef=0.01",
        "budget.words=null",
    ]


def assert_honest(run_dir, summary, words):
    """What was seen is said in summary, report and rows; the adapter is finite and loads."""
    rollbacks = summary["guard"]["rollbacks"]
    assert rollbacks
    assert any(word in one["reason"] for one in rollbacks for word in words), rollbacks
    assert [r["guard"] for r in rows_of(run_dir) if "guard" in r] == [
        one["reason"] for one in rollbacks
    ]
    assert "went back to its last good state" in (run_dir / "report.html").read_text()
    adapter = load_file(run_dir / "adapter" / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in adapter.values())


def test_an_absurd_learning_rate_ends_with_a_usable_adapter(tmp_path):
    summary = run([*SMALL, ABSURD], tmp_path / "run")
    assert_honest(tmp_path / "run", summary, ["ratio", "KL", "finite", "skipped", "entropy"])
    assert summary["stopped"] == "collapse"
    assert summary["budget"]["chosen_iteration"] == 0
    assert summary["after"]["toxicity"] == summary["before"]["toxicity"]
    assert "the adapter is that of the start" in (tmp_path / "run" / "report.html").read_text()


def test_a_planted_word_is_noticed_as_the_judge_does_not_follow(tmp_path):
    options = [*SMALL, *hackable(tmp_path, "trigger"), "algorithm.learning_rate=2e-3"]
    options += ["algorithm.rollout_batch_size=32", "algorithm.minibatch_size=16"]
    options += ["algorithm.microbatch_size=16", "algorithm.iterations=10", "evaluation.every=5"]
    options += ["algorithm.kl.coef=0.1", "guard.reward_rise=0.5"]  # in 10 iterations, not in 30
    summary = run(options, tmp_path / "run")
    assert_honest(tmp_path / "run", summary, ["the judge's toxicity"])


def test_a_reward_for_silence_is_noticed_by_the_length(tmp_path):
    options = [*SMALL, *hackable(tmp_path, "silence"), "budget=off"]
    options += ["algorithm.learning_rate=1e-2", "algorithm.iterations=8"]
    summary = run(options, tmp_path / "run")
    assert_honest(tmp_path / "run", summary, ["response length", "distinct-2", "perplexity"])
    before, after = summary["before"], summary["after"]
    assert after["response_tokens"] > 0.25 * before["response_tokens"]
    assert after["perplexity"] < 5 * before["perplexity"]
    assert "budget" not in summary


@pytest.mark.parametrize("cut", [2, 4])
def test_a_run_that_went_back_resumes_bit_for_bit(tmp_path, cut, finished_run):
    from tests.fault.test_resume import result_of, resumed_from  # noqa: PLC0415

    options = [*SMALL, "guard.retries=9", "checkpoint.every=1", "checkpoint.keep=9"]
    options += ["debug=smoke", "algorithm.iterations=6", "guard.kl=0.02"]  # soon too far
    options += ["algorithm.learning_rate=0.03"]
    whole = shutil.copytree(finished_run(*options), tmp_path / "whole")
    assert json.loads((whole / "summary.json").read_text())["guard"]["rollbacks"]
    assert result_of(resumed_from(whole, cut, options)) == result_of(whole)
