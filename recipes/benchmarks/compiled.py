# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""What does a minibatch of an update ask of the device with `policy.compile`, and how long is it?

    .venv/bin/python -m recipes.benchmarks.compiled
        [recipes/benchmarks/workloads/NAME.json] [--layers 28]

Forward, backward and optimizer step of one minibatch, without and with compiled passes. By way:
operations that start a kernel outside of compiled code, counted by torch's dispatcher; calls in the
code that inductor writes, of operations of torch (products, attention) and of generated kernels;
seconds of the first minibatch, which compiles, and of a later one. With a GPU there is a third way,
`reduce_overhead`: its kernels are the same, replayed as graphs.
"""

import argparse
import json
import re
import time
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._inductor import config as inductor_config
from torch._inductor.graph import GraphLowering
from torch.utils._python_dispatch import _disable_current_modes

from lora_detox.advantages import AdvantagePlan, estimate_advantages
from lora_detox.choices import Compile, KlPenalty
from lora_detox.policy.compiled import CompiledPasses
from lora_detox.policy.policy import LoraPolicy
from lora_detox.rollout import collect_rollout, generate_responses
from lora_detox.types import Advantages, Rollout, Sampling
from recipes.benchmarks.counting import Counter
from recipes.benchmarks.iteration import build_policy, build_update, passes_of, random_prompts

HERE = Path(__file__).resolve().parent
ROUNDS = 5
GENERATED = re.compile(r"^ +(?:cpp_\w+\(|triton_\w+\.run\()", re.MULTILINE)
"""Calls of generated kernels, in the code that inductor writes around them."""
TORCHS = re.compile(r"^ +(?:\w+ = )?(?:extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", re.MULTILINE)
"""Calls of operations of torch there."""


def unseen(forward: Any) -> Any:
    """A compiled forward that does not look at the counter, with which torch would not run it."""

    def call(*inputs: Any, **keywords: Any) -> Any:
        with _disable_current_modes():
            return forward(*inputs, **keywords)

    return call


def minibatch_of(policy: LoraPolicy, work: dict[str, Any]) -> tuple[Rollout, Advantages]:
    """One minibatch of the workload, with advantages."""
    length, size = work["response_tokens"], work["minibatch_size"]
    sampling = Sampling(min_new_tokens=length)
    prompts = random_prompts(policy, {**work, "rollout_batch_size": size})
    responses = generate_responses(
        policy, prompts, sampling, response_tokens=(length, length), batch_size=size, seed=0
    )
    rollout = collect_rollout(
        policy,
        prompts,
        responses,
        sampling,
        minibatch_size=size,
        passes=passes_of(policy, work),
        seed=0,
    )
    plan = AdvantagePlan(kl_penalty=KlPenalty.kl, gamma=1.0, gae_lambda=0.95, whiten_rewards=False)
    score = torch.arange(size, device=policy.device) % 3.0
    return rollout, estimate_advantages(rollout, score, 0.2, plan)


def row(work: dict[str, Any], mode: Compile, device: torch.device) -> tuple[str, Tensor]:
    """Cells of the table, and the adapter after one step, for a comparison."""
    policy = build_policy(work, dtype=torch.float32, frozen=False)
    policy.model.to(device)
    if policy.value_head is not None:
        policy.value_head.to(device)
    update = build_update(policy, {**work, "ppo_epochs": 1}, Sampling())
    rollout, advantages = minibatch_of(policy, work)  # by plain passes: alike for all ways
    if mode is not Compile.none:
        passes = CompiledPasses(policy.family, policy.backbone, policy.frozen_part, mode)
        passes.forwards = [unseen(forward) for forward in passes.forwards]
        policy.passes = passes

    def step() -> float:
        start = time.perf_counter()
        update.step(rollout, advantages, 0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    written: list[str] = []  # nothing is read from inductor's cache, which has no code
    keeping = patch.object(GraphLowering, "save_output_code", written.append)
    with keeping, inductor_config.patch(fx_graph_cache=False):
        first = step()
    adapter = torch.cat([one.detach().flatten() for one in policy.adapter_parameters()]).cpu()
    later = min(step() for _ in range(ROUNDS))
    with Counter([]) as counter:
        step()
    generated = sum(len(GENERATED.findall(code)) for code in written)
    torchs = [len(TORCHS.findall(code)) for code in written]  # forward, backward
    outside = counter.counts.operations - sum(torchs[1:])  # the counter sees a backward pass
    counts = [outside, sum(torchs), generated, outside + sum(torchs) + generated]
    cells = [mode.value, *(f"{count:,}" for count in counts)]
    return " | ".join([*cells, f"{first:.1f}", f"{later:.3f}"]), adapter


def difference(own: Tensor, plain: Tensor) -> float:
    """Largest difference of two adapters, as a fraction of the largest number."""
    return float((own - plain).abs().max() / plain.abs().max())


def main() -> None:
    """One line for each way."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workload", nargs="?", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers than the workload's GPT-J")
    given = parser.parse_args()
    work = json.loads((given.workload or HERE / "workloads" / "gptj_28_layers.json").read_text())
    if given.layers:
        work["config"]["n_layer"] = given.layers
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print("| policy.compile | outside | torch's | generated | together | first, s | later, s |")
    print("|---|---|---|---|---|---|---|")
    plain = None
    for mode in Compile:
        if mode is Compile.reduce_overhead and device.type != "cuda":
            continue
        cells, adapter = row(work, mode, device)
        plain = adapter if plain is None else plain
        print(f"| {cells} |", flush=True)
        print(f"adapter after one step: {difference(adapter, plain):.1e} of its largest number")


if __name__ == "__main__":
    main()
