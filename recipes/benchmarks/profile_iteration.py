# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""What does an iteration ask of the machine?

    .venv/bin/python -m recipes.benchmarks.profile_iteration
        [recipes/benchmarks/workloads/NAME.json]
        [--dtype bfloat16] [--frozen] [--names]

By phase: seconds, operations that start a kernel, host synchronisations, bytes of weights read,
floating point operations of products, and the floor that follows from them on this machine. The
counts come from torch's dispatcher, so that what a GPU would be asked for is counted on a CPU too.
One minibatch of the update is held against one plain forward and backward pass of the frozen model
with PEFT's LoRA and the cross-entropy of the same tokens.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn

from lora_detox.advantages import AdvantagePlan, estimate_advantages
from lora_detox.choices import KlPenalty
from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.policy import LoraPolicy
from lora_detox.rollout import collect_rollout, generate_responses
from lora_detox.types import Rollout, Sampling
from recipes.benchmarks.counting import Counter, Counts
from recipes.benchmarks.floor import best_rate
from recipes.benchmarks.iteration import (
    build_backbone,
    build_policy,
    build_update,
    passes_of,
    random_prompts,
)

HERE = Path(__file__).resolve().parent
GOAL = 1.3
"""Operations of a minibatch's update over those of a plain forward and backward pass, at most."""
BANDWIDTH_BYTES = 1 << 28


def phases(work: dict[str, Any], policy: LoraPolicy) -> dict[str, tuple[float, Counts]]:
    """Seconds (of a second iteration, uncounted) and counts of each phase."""
    _iteration(work, policy, count=False)
    seconds = {name: one for name, (one, _) in _iteration(work, policy, count=False).items()}
    counted = _iteration(work, policy, count=True)
    return {name: (seconds[name], counts) for name, (_, counts) in counted.items()}


def _iteration(
    work: dict[str, Any], policy: LoraPolicy, *, count: bool
) -> dict[str, tuple[float, Counts]]:
    length, size = work["response_tokens"], work["rollout_batch_size"]
    sampling = Sampling(min_new_tokens=length)
    update, prompts = build_update(policy, work, sampling), random_prompts(policy, work)
    plan = AdvantagePlan(kl_penalty=KlPenalty.kl, gamma=1.0, gae_lambda=0.95, whiten_rewards=False)
    weights, measured = list(policy.model.parameters()), {}

    def timed(name: str, work_of_phase: Any) -> Any:
        start, counter = time.perf_counter(), Counter(weights)
        if count:
            with counter:
                result = work_of_phase()
        else:
            result = work_of_phase()
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        measured[name] = (time.perf_counter() - start, counter.counts)
        return result

    responses = timed(
        "generate",
        lambda: generate_responses(
            policy, prompts, sampling, response_tokens=(length, length), batch_size=size, seed=0
        ),
    )
    rollout: Rollout = timed(
        "reference",
        lambda: collect_rollout(
            policy,
            prompts,
            responses,
            sampling,
            minibatch_size=work["minibatch_size"],
            passes=passes_of(policy, work),
            seed=0,
        ),
    )
    score = torch.arange(size) % 3.0
    advantages = estimate_advantages(rollout, score, 0.2, plan)
    timed("update", lambda: update.step(rollout, advantages, 0))
    return measured


def plain_counts(work: dict[str, Any], dtype: torch.dtype) -> Counts:
    """One forward and backward pass of a minibatch by Transformers and PEFT alone."""
    torch.manual_seed(0)
    backbone = build_backbone(work, dtype)
    adapter = work["adapter"]
    plan = AdapterPlan(
        rank=adapter["rank"], alpha=adapter["alpha"], targets=tuple(adapter["targets"]), scope="all"
    )
    model: nn.Module = get_peft_model(backbone, lora_config(plan, backbone.config))
    rows = work["minibatch_size"]
    queries, length = work["query_tokens"][1], work["response_tokens"]
    vocabulary = work["config"]["vocab_size"]

    def ids(columns: int) -> Tensor:
        return torch.randint(3, vocabulary, (rows, columns))

    if backbone.config.is_encoder_decoder:
        inputs = {"input_ids": ids(queries), "labels": ids(length)}
    else:
        tokens = ids(queries + length)
        inputs = {"input_ids": tokens, "labels": tokens}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, 0] = 0  # as padded rows have it
    with Counter(list(model.parameters())) as counter:
        model(**inputs).loss.backward()
    return counter.counts


def bandwidth() -> float:
    """Bytes per second that this machine reads."""
    block, seconds = torch.zeros(BANDWIDTH_BYTES // 4), []
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        seconds.append(time.perf_counter() - start)
    return BANDWIDTH_BYTES / min(seconds)


def main() -> None:
    """One line per phase, then the minibatch beside the plain pass."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workload", nargs="?", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--frozen", action="store_true", help="adapters in the upper part only")
    parser.add_argument("--names", action="store_true", help="the most frequent operations too")
    given = parser.parse_args()
    work = json.loads((given.workload or HERE / "workloads" / "gptj_28_layers.json").read_text())
    dtype = getattr(torch, given.dtype)
    policy = build_policy(work, dtype=dtype, frozen=given.frozen)
    rate, read = best_rate(dtype), bandwidth()
    print(f"{work['name']}, {given.dtype}: {rate / 1e9:.0f} GFLOP/s, {read / 1e9:.0f} GB/s")
    results = phases(work, policy)
    for name, (seconds, counts) in results.items():
        floor = max(counts.flops / rate, counts.weight_bytes / read)
        print(
            f"{name:10} {seconds:8.3f} s  {counts.operations:7,} operations  "
            f"{counts.waits:5} synchronisations  {counts.weight_bytes / 1e9:7.2f} GB of weights  "
            f"{counts.flops / 1e9:9.1f} GFLOP  floor {floor:.3f} s"
        )
        if given.names:
            print(f"           {_most(counts.by_name)}; waits: {_most(counts.waits_by_name)}")
    steps = work["ppo_epochs"] * work["rollout_batch_size"] // work["minibatch_size"]
    own, plain = results["update"][1], plain_counts(work, dtype)
    ratio = own.operations / steps / plain.operations
    print(
        f"one minibatch of the update: {own.operations / steps:,.0f} operations, a plain forward "
        f"and backward pass {plain.operations:,}: {ratio:.2f}x (goal: at most {GOAL}x); "
        f"{own.waits / steps:.1f} synchronisations (goal: 0)"
    )
    if given.names:
        print(f"plain      {_most(plain.by_name)}")


def _most(names: dict[str, int], count: int = 14) -> str:
    ordered = sorted(names.items(), key=lambda one: -one[1])[:count]
    return ", ".join(f"{name} {number:,}" for name, number in ordered) or "none"


if __name__ == "__main__":
    main()
