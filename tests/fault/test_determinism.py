"""What training must not depend on: evaluation, trackers, the microbatch, a stop in bf16."""

import os
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_detox.api import run
from tests.fault.test_resume import result_of, resumed_from
from tests.runs import SMOKE

pytestmark = pytest.mark.training

OPTIONS = [
    *SMOKE,
    "task=gptj_continuation",
    "algorithm.iterations=2",
    "algorithm.rollout_batch_size=8",
    "algorithm.minibatch_size=8",
    "algorithm.ppo_epochs=1",
    "checkpoint.every=1",
    "checkpoint.keep=9",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "evaluation.resamples=20",
]


def trained(options, folder):
    """What training has made of the weights, whatever is shipped of it."""
    run([*OPTIONS, *options], folder)
    tensors = load_file(folder / "checkpoints" / "iteration_000002" / "tensors.safetensors")
    return {name: one for name, one in tensors.items() if name.startswith(("param", "optim"))}


def differing(left, right):
    return [name for name in left.keys() | right.keys() if not torch.equal(left[name], right[name])]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Weights by whether a budget binds."""
    folder = tmp_path_factory.mktemp("plain")
    budgets = ("off", "default")
    return {one: trained([f"budget={one}"], folder / one) for one in budgets}


@pytest.mark.parametrize("budget", ["off", "default"])
@pytest.mark.parametrize(
    "options",
    [
        ["evaluation.every=1000"],
        ["evaluation.validation_prompts=7", "evaluation.validation_samples=2"],
        ["evaluation.seed=5", "evaluation.greedy=true", "evaluation.samples_per_prompt=2"],
        ["judge=none"],
    ],
)
def test_evaluation_does_not_change_training(plain, tmp_path, budget, options):
    other = trained([f"budget={budget}", *options], tmp_path / "run")
    assert differing(plain[budget], other) == []


def test_trackers_do_not_change_training(plain, tmp_path, monkeypatch):
    calls = []
    tracker = types.SimpleNamespace(
        log=lambda values, step: calls.append(torch.rand(3)), finish=lambda: None
    )
    fake = types.ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = lambda **given: tracker
    monkeypatch.setitem(sys.modules, "wandb", fake)
    other = trained(["budget=off", "tracker=wandb"], tmp_path / "run")
    assert calls
    assert differing(plain["off"], other) == []


@pytest.mark.parametrize("task", ["gptj_continuation", "flan_summary"])
def test_the_microbatch_changes_weights_by_rounding_alone(tmp_path, task):
    options = ["budget=off", "policy.dtype=float32", f"task={task}"]
    whole = trained([*options, "algorithm.microbatch_size=8"], tmp_path / "8")
    for size in (1, 4):
        parts = trained([*options, f"algorithm.microbatch_size={size}"], tmp_path / str(size))
        for name, one in whole.items():
            if name.startswith("param"):
                assert (one - parts[name]).abs().max() < 1e-5, (size, name)


BF16 = [*OPTIONS, "policy.dtype=bfloat16", "algorithm.average=0.8", "adapter.dropout=0.1"]


def test_a_run_in_bf16_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    run(BF16, tmp_path / "whole")
    whole = result_of(tmp_path / "whole")
    assert result_of(resumed_from(tmp_path / "whole", 1, BF16)) == whole


@pytest.mark.slow
def test_so_it_does_on_a_cpu_without_bf16_units(tmp_path):
    """In a process of its own: torch and oneDNN read what they may use at their first call."""
    program = (
        "from pathlib import Path\n"
        "import tests.fault.test_determinism as own\n"
        f"own.test_a_run_in_bf16_goes_on_from_a_checkpoint_bit_for_bit(Path({str(tmp_path)!r}))\n"
    )
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | limits | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
