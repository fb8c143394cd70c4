"""TRL's trainers and best-of-n: pairs by hand, whole runs at smoke size, equal sample counts."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lora_detox import api, progress
from lora_detox.clock import Clock
from lora_detox.errors import DataError, SettingsError
from lora_detox.prompts.batching import repeat_prompts
from lora_detox.run import build
from lora_detox.trainers.groups import (
    Pair,
    ScoredGroup,
    best_responses,
    preference_pairs,
    score_groups,
)
from lora_detox.types import Sampling, Scores
from tests.runs import SMOKE, write_run
from tests.tiny import tiny_policy, tiny_prompts

SMALL = [*SMOKE, "algorithm.learning_rate=0.02", "adapter.targets=[all-linear]"]
TRL = ["trl_dpo", "trl_grpo", "trl_rloo"]


def group(scores, responses=None):
    responses = responses or [[10 + place] for place in range(len(scores))]
    return ScoredGroup(query_ids=[7, 8], responses=responses, scores=scores)


def test_the_best_of_a_group_is_preferred_to_its_worst_where_the_gap_is_large_enough():
    groups = [
        group([0.5, 2.0, -1.0]),
        group([0.0, 0.4]),  # too close
        group([1.0, 1.0]),  # nothing to prefer
        group([3.0, 0.0], [[5], [5]]),  # the same text
    ]
    assert preference_pairs(groups, 1.0) == [Pair(query_ids=[7, 8], chosen=[11], rejected=[12])]
    close = Pair(query_ids=[7, 8], chosen=[11], rejected=[10])
    assert preference_pairs(groups, 0.0)[1:] == [close]
    with pytest.raises(DataError, match=r"none of 2 groups .*algorithm\.trainer\.least_gap"):
        preference_pairs(groups[1:3], 1.0)


def test_the_best_response_is_the_first_of_the_highest_scores():
    assert best_responses([group([0.0, 2.0, 2.0]), group([1.0, 0.0])]) == [
        ([7, 8], [11]),
        ([7, 8], [10]),
    ]


class CountedReward:
    """Likes responses by their length; remembers what it was asked."""

    scorer_id = "length"

    def __init__(self):
        self.asked = []

    def score(self, prompts, responses, **columns):
        self.asked += list(zip(prompts, responses, strict=True))
        lengths = torch.tensor([float(len(text.split())) for text in responses])
        return Scores(score=lengths, toxicity=torch.zeros(len(lengths)), parts={}, scorer_id="x")


def test_groups_keep_sampled_ids_and_score_as_many_responses_as_the_main_path():
    policy = tiny_policy("gptj")
    sizes = [f"algorithm.{one}_size=8" for one in ("rollout_batch", "minibatch", "microbatch")]
    settings = api.compose_settings(["task=gptj_continuation", "algorithm=best_of_n", *sizes])
    batches = [
        repeat_prompts(tiny_prompts(policy, [3 + which, 5], seed=which), 4) for which in range(3)
    ]
    plan = SimpleNamespace(
        iterations=3,
        sampling=Sampling(),
        generation={"response_tokens": (2, 6), "batch_size": 8},
    )
    job = SimpleNamespace(
        policy=policy,
        settings=settings,
        plan=plan,
        clock=Clock(),
        reward=CountedReward(),
        prompts=lambda which: batches[which],
        seed=lambda iteration: iteration,
    )
    groups = []
    for group in score_groups(job):
        groups.append(group)
        (shown,) = progress._open_phases
        done = 8 * ((len(groups) - 1) // 2)  # of whole iterations, each of two groups
        assert done <= shown.counted / shown.passes <= done + 8
    assert shown.total == 24
    assert shown.counted / shown.passes == 24
    assert [len(one.scores) for one in groups] == [4] * 6
    queries = [
        ids[mask].tolist()
        for batch in batches
        for ids, mask in zip(batch.query_ids, batch.query_mask, strict=True)
    ]
    assert [one.query_ids for one in groups] == queries[::4]
    assert [prompt for prompt, _ in job.reward.asked] == [t for b in batches for t in b.texts]
    decode = policy.tokenizer.decode
    said = [decode(ids, skip_special_tokens=True) for one in groups for ids in one.responses]
    assert said == [response for _, response in job.reward.asked]
    scores = [score for one in groups for score in one.scores]
    assert scores == [float(len(response.split())) for response in said]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.training
@pytest.mark.parametrize(
    ("task", "algorithm"),
    [("flan_summary", "best_of_n"), *(("gptj_continuation", a) for a in ["best_of_n", *TRL])],
)
def test_a_run_moves_the_adapter_alone_and_scores_the_same_number_of_samples(
    task, algorithm, tmp_path, monkeypatch
):
    jobs, real, folder = [], build.announce, tmp_path / "run"
    monkeypatch.setattr(build, "announce", lambda job: (jobs.append(job), real(job)))
    summary = api.run([f"task={task}", f"algorithm={algorithm}", *SMALL], folder)
    assert list(jobs[0].policy.model.peft_config) == ["default"]  # TRL's reference is gone
    assert "forward" not in vars(jobs[0].policy.backbone)
    assert summary["algorithm"] == algorithm
    assert summary["scored_samples"] == 2 * 8  # iterations x rollout_batch_size
    assert summary["optimizer_steps"] > 0
    assert summary["parameters"]["base_unchanged"] is True
    for moment in ("before", "after"):
        assert {"toxicity", "judge_toxicity", "distinct_2", "response_tokens"} <= set(
            summary[moment]
        )
    assert {"total", "generate", "score", "update", "evaluate"} <= set(summary["seconds"])
    assert min(summary["seconds"].values()) > 0
    learned = load_file(folder / "adapter" / "adapter_model.safetensors")
    moved = [name for name, tensor in learned.items() if "lora_B" in name and tensor.any()]
    assert moved
    assert not [name for name in learned if "ref" in name.split(".")]
    assert {path.name for path in (folder / "adapter").iterdir()} >= {"adapter_config.json"}
    assert not (folder / "adapter" / "ref").exists()
    assert not (folder / "value_head.safetensors").exists()
    rows = rows_of(folder)
    assert "evaluation" in rows[0]
    assert "evaluation" in rows[-1]
    assert all(math.isfinite(row["loss"]) for row in rows[1:-1])
    assert not any("kl_coef" in row for row in rows)
    page = (folder / "report.html").read_text()
    assert "KL coefficient" not in page
    assert "<h3>Loss</h3>" in page
    if algorithm in {"trl_grpo", "trl_rloo"}:
        assert [row["iteration"] for row in rows] == [0, 1, 2, 2]
        assert all({"score", "toxicity", "response_tokens"} <= set(row) for row in rows[1:3])
        assert summary["optimizer_steps"] == 2 * 2 * 2  # iterations x minibatches x passes
    if task == "gptj_continuation":
        base = AutoModelForCausalLM.from_pretrained(folder / "tiny_model")
        loaded = dict(PeftModel.from_pretrained(base, folder / "adapter").named_parameters())
        for name, tensor in learned.items():
            assert torch.equal(loaded[name.replace(".weight", ".default.weight")], tensor)


@pytest.mark.training
@pytest.mark.parametrize("changes", [{}, {"init_lora_weights": "pissa"}, {"tokens": True}])
def test_the_reference_of_dpo_is_the_adapter_that_training_starts_from(tmp_path, changes):
    first = write_run(tmp_path / "first")
    tiny, adapter = first / "tiny_model", first / "adapter"
    if changes:  # TRL's own copy would take the start out of the base again, or miss the tokens
        rows = {"trainable_token_indices": [*range(300)]} if "tokens" in changes else changes
        write_trained(tiny, adapter, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **rows))
    start = ["debug.tiny_model=false", "policy=local", f"policy.path={tiny}"]
    options = ["task=gptj_continuation", "algorithm=trl_dpo", *SMALL, *start]
    options += [f"policy.adapter={adapter}", "algorithm.trainer.least_gap=0"]
    summary = api.run(options, tmp_path / "second")
    rows = rows_of(tmp_path / "second")
    assert rows[1]["loss"] == pytest.approx(
        math.log(2), abs=1e-4
    )  # chosen and rejected as the start
    assert rows[2]["loss"] != rows[1]["loss"]
    learned = load_file(tmp_path / "second" / "adapter" / "adapter_model.safetensors")
    before = load_file(adapter / "adapter_model.safetensors")
    assert learned.keys() == before.keys()
    assert any(not torch.equal(learned[name], before[name]) for name in before)
    assert summary["parameters"]["base_unchanged"] is True


def write_trained(base, folder, config):
    """An adapter on a model, with random weights as after some training."""
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def test_trl_takes_lora_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "load_policy", lambda *_: pytest.fail("weights were loaded"))
    first = write_run(tmp_path / "first")
    tiny, adapter = first / "tiny_model", tmp_path / "ia3"
    write_trained(tiny, adapter, IA3Config(target_modules=["v_proj"], feedforward_modules=[]))
    options = ["debug.tiny_model=false", "policy=local", f"policy.path={tiny}"]
    options += [f"policy.adapter={adapter}", "task=gptj_continuation", "algorithm=trl_dpo"]
    with pytest.raises(SettingsError, match=r"algorithm=trl_dpo with policy.adapter=.*is IA3"):
        api.run(options, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=flan_summary", "algorithm=trl_dpo"], r"algorithm=trl_dpo .*encoder-decoder"),
        (["task=flan_summary", "algorithm=trl_grpo"], r"algorithm=trl_grpo .*best_of_n"),
        (
            ["algorithm=trl_dpo", "algorithm.responses_per_prompt=5"],
            r"algorithm\.responses_per_prompt=5 does not divide",
        ),
        (
            ["algorithm=best_of_n", "algorithm.responses_per_prompt=1", "algorithm.baseline=value"],
            r"algorithm\.responses_per_prompt: got 1; algorithm=best_of_n .*want 2 or more",
        ),
        (["algorithm=best_of_n", "resume=true"], r"resume: algorithm=best_of_n keeps no"),
    ],
)
def test_what_a_method_cannot_do_is_said_before_weights_load(
    overrides, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "load_policy", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(SettingsError, match=expected):
        api.run(["task=gptj_continuation", *overrides], tmp_path / "run")
