"""Exactly one backbone is in memory, counted over every tensor that is alive."""

import gc

import pytest
import torch
from torch import Tensor

from lora_detox.api import compose_settings
from lora_detox.run.build import open_job
from lora_detox.stages.detox import train
from tests.runs import write_adapter

MODELS = {"flan_summary": "t5", "gptj_continuation": "gptj"}
SMALL = [
    "algorithm.iterations=1",
    "algorithm.rollout_batch_size=4",
    "algorithm.minibatch_size=4",
    "algorithm.microbatch_size=2",
    "algorithm.ppo_epochs=1",
    "generation.response_tokens=[4,6]",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "data.limit=60",
    "checkpoint.every=0",
    "budget=off",  # it keeps the best adapter in memory too
    "guard=off",  # and this one the last good state
    "adapter.targets=[]",  # on all linear layers it is a seventh of so small a backbone
]


def storages(tensors):
    """Bytes by storage, each once."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def alive():
    gc.collect()
    return storages(
        t
        for t in gc.get_objects()
        if issubclass(type(t), Tensor) and t.device.type == "cpu" and t.layout is torch.strided
    )


def parts_of(job):
    """Bytes by storage of everything that a run may hold."""
    policy = job.policy
    named = list(policy.model.named_parameters())
    scorers = [p for s in (job.reward, job.judge) for p in s._model.state_dict().values()]
    scorers += [b for s in (job.reward, job.judge) for b in s._model.buffers()]
    trained = list(policy.trainable_parameters())
    moments = [t for s in job.update.optimizer.state.values() for t in s.values()]
    return {
        "backbone": storages(
            [p for n, p in named if "lora_" not in n] + list(policy.model.buffers())
        ),
        "adapters": storages(
            [p for n, p in named if "lora_" in n] + [copy for _, copy in policy._reference.start]
        ),
        "head": storages(policy.value_head.parameters()),
        "gradients": storages(p.grad for p in trained if p.grad is not None),
        "moments": storages(moments),
        "scorers": storages(scorers),
    }


@pytest.mark.training
@pytest.mark.parametrize("from_adapter", [False, True], ids=["fresh", "from an adapter"])
@pytest.mark.parametrize("task", ["flan_summary", "gptj_continuation"])
def test_one_backbone_is_in_memory_after_an_iteration(tmp_path, task, from_adapter):
    overrides = [f"task={task}", *SMALL]
    if from_adapter:
        write_adapter(MODELS[task], tmp_path / "adapter")
        overrides.append(f"policy.adapter={tmp_path / 'adapter'}")
    before = alive()
    with open_job(compose_settings(overrides, tmp_path / "run")) as job:
        train(job)
        parts, now = parts_of(job), alive()
        known = {key for part in parts.values() for key in part}
        backbone = sum(parts["backbone"].values())
        copies = 2 if from_adapter else 1
        learned = sum(p.numel() * 4 for p in job.policy.adapter_parameters())
        assert sum(parts["adapters"].values()) == copies * learned
        head = sum(parts["head"].values())
        steps = 4 * len(job.update.optimizer.state)  # AdamW counts its steps by parameter
        assert sum(parts["moments"].values()) == 2 * (learned + head) + steps
        others = sum(size for key, size in now.items() if key not in known and key not in before)
        # Prompts, masks and what libraries keep: nothing of the size of a second backbone.
        assert others < 0.1 * backbone
        assert max((s for k, s in now.items() if k not in known | set(before)), default=0) < 2**18

        weights = {
            n: p.untyped_storage().data_ptr() for n, p in job.policy.model.named_parameters()
        }
        with job.policy.merged():
            pass
        job.evaluator(job.encoded.validation)
        after = {n: p.untyped_storage().data_ptr() for n, p in job.policy.model.named_parameters()}
        assert after == weights
        left = sum(s for k, s in alive().items() if k not in known and k not in before)
        assert left < 0.1 * backbone


def test_the_count_sees_a_second_backbone(tmp_path):
    """The measure itself: a planted copy shows."""
    with open_job(compose_settings(["task=flan_summary", *SMALL], tmp_path / "run")) as job:
        before = alive()
        copy = {n: p.clone() for n, p in job.policy.model.named_parameters() if "lora_" not in n}
        more = sum(size for key, size in alive().items() if key not in before)
        backbone = sum(parts_of_backbone(job).values())
        assert more == pytest.approx(backbone, rel=0.05)
        assert copy


def parts_of_backbone(job):
    return storages(p for n, p in job.policy.model.named_parameters() if "lora_" not in n)
