# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Seconds per phase and peak memory of iterations of the arrow on a workload; prints one JSON line.

    python -m recipes.benchmarks.iteration recipes/benchmarks/workloads/causal_125m.json \
        [--dtype bfloat16] [--frozen] [--unbounded] [--iterations 5] [--threads 2]

    torchrun --nproc_per_node 2 -m recipes.benchmarks.iteration WORKLOAD --threads 1

The model is random, every response has the same fixed length and the scores are a fixed pattern, so
that two implementations do the same work. The first iteration warms up and is not counted.
"""

import argparse
import json
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lora_detox.advantages import AdvantagePlan, estimate_advantages
from lora_detox.choices import KlPenalty
from lora_detox.machine import attention_of, keep_freed_memory, trim_heap
from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.families import family_of
from lora_detox.policy.lean import make_lean
from lora_detox.policy.policy import LoraPolicy
from lora_detox.processes import joined
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.types import PromptBatch, Sampling
from lora_detox.update import PpoPlan, PpoUpdate


def build_backbone(work: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    """The workload's model with random weights in their dtype, without dropout, as runs load it.

    T5's output matrix is untied, as its hub checkpoint's is.
    """
    attention = attention_of(torch.device("cpu"), dtype)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if work["family"] == "gpt_neo":
            config = GPTNeoConfig(**work["config"], attention_dropout=0.0, embed_dropout=0.0)
            return GPTNeoForCausalLM(config).eval()
        if work["family"] == "llama":
            config = LlamaConfig(**work["config"], attn_implementation=attention)
            return LlamaForCausalLM(config).eval()
        if work["family"] == "gptj":
            config = GPTJConfig(
                **work["config"],
                attn_pdrop=0.0,
                embd_pdrop=0.0,
                resid_pdrop=0.0,
                attn_implementation=attention,
            )
            return GPTJForCausalLM(config).eval()
        config = T5Config(**work["config"], dropout_rate=0.0, attn_implementation=attention)
        model = T5ForConditionalGeneration(config)
        model.lm_head = nn.Linear(model.config.d_model, model.config.vocab_size, bias=False)
        return model.eval()
    finally:
        torch.set_default_dtype(previous)


def build_policy(work: dict[str, Any], *, dtype: torch.dtype, frozen: bool) -> LoraPolicy:
    """A policy on that model, everything with the adapter placement of the workload."""
    torch.manual_seed(0)
    backbone = build_backbone(work, dtype)
    adapter = work["adapter"]
    plan = AdapterPlan(
        rank=adapter["rank"],
        alpha=adapter["alpha"],
        targets=tuple(adapter["targets"]),
        scope=work["frozen_scope"] if frozen else "all",
    )
    words = {f"t{i}": i for i in range(work["config"]["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t2")),
        pad_token="t0",
        eos_token="t1",
        unk_token="t2",
    )
    model = get_peft_model(backbone, lora_config(plan, backbone.config))
    make_lean(model)
    trim_heap()
    keep_freed_memory(torch.device("cpu"))
    return LoraPolicy(model, tokenizer, family_of(backbone.config))


def random_prompts(policy: LoraPolicy, work: dict[str, Any]) -> PromptBatch:
    """Prompts whose lengths spread evenly over the workload's range."""
    (low, high), size = work["query_tokens"], work["rollout_batch_size"]
    lengths = [low + (high - low) * i // (size - 1) for i in range(size)]
    ids = torch.zeros(size, high, dtype=torch.long)
    mask = torch.zeros(size, high, dtype=torch.bool)
    for row, length in enumerate(lengths):
        left = 0 if policy.family.padding_side == "right" else high - length
        ids[row, left : left + length] = torch.randint(3, policy.vocabulary - 1, (length,))
        mask[row, left : left + length] = True
    blank: list[str] = [""] * size
    return PromptBatch(
        texts=blank, query_ids=ids, query_mask=mask, references=[[]] * size, row_ids=blank
    )


def build_update(policy: LoraPolicy, work: dict[str, Any], sampling: Sampling) -> PpoUpdate:
    """The PPO update of a workload, as TRL 0.11.4 has it by default."""
    plan = PpoPlan(
        ppo_epochs=work["ppo_epochs"],
        clip_range=0.2,
        value_clip_range=0.2,
        value_coef=0.1,
        max_grad_norm=None,
        ratio_threshold=10.0,
        target_kl=None,
    )
    optimizer = torch.optim.AdamW(
        policy.trainable_parameters(), lr=work["learning_rate"], fused=True
    )
    return PpoUpdate(policy, optimizer, plan, sampling)


def passes_of(policy: LoraPolicy, work: dict[str, Any]) -> Passes:
    """How rows are cut into passes; `overhead` of the workload replaces our own."""
    passes = Passes.on(
        policy.device,
        work["minibatch_size"],
        work["microbatch_tokens"],
        dtype=policy.backbone.dtype,
    )
    overhead = work.get("overhead")
    return passes if overhead is None else replace(passes, overhead=overhead)


def measure(
    work: dict[str, Any],
    policy: LoraPolicy,
    iterations: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each phase of each iteration, by a clock that counts seconds."""
    length, size = work["response_tokens"], work["rollout_batch_size"]
    sampling = Sampling(min_new_tokens=length)
    advantage_plan = AdvantagePlan(
        kl_penalty=KlPenalty.kl, gamma=1.0, gae_lambda=0.95, whiten_rewards=False
    )
    update, passes = build_update(policy, work, sampling), passes_of(policy, work)
    phases: dict[str, list[float]] = {"generate": [], "reference": [], "update": []}
    for iteration in range(1 + iterations):
        prompts = random_prompts(policy, work)
        marks = [clock()]
        responses = generate_responses(
            policy,
            prompts,
            sampling,
            response_tokens=(length, length),
            batch_size=size,
            seed=iteration,
        )
        marks.append(clock())
        rollout = collect_rollout(
            policy,
            prompts,
            responses,
            sampling,
            minibatch_size=work["minibatch_size"],
            passes=passes,
            seed=iteration,
        )
        marks.append(clock())
        score = torch.tensor([float(i % 3) for i in range(size)])
        advantages = estimate_advantages(rollout, score, 0.2, advantage_plan)
        update.step(rollout, advantages, iteration)
        marks.append(clock())
        for name, begin, end in zip(phases, marks, marks[1:], strict=False):
            phases[name].append(end - begin)
    return {name: seconds[1:] for name, seconds in phases.items()}


def main() -> None:
    """Measure one variant."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--frozen", action="store_true", help="adapters in the upper part only")
    parser.add_argument("--unbounded", action="store_true", help="no bound on tokens of a pass")
    parser.add_argument("--overhead", type=int, help="of a pass, in tokens, in place of our own")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    work = json.loads(options.workload.read_text(encoding="utf-8"))
    if options.unbounded:
        work["microbatch_tokens"] = None
    work["overhead"] = options.overhead
    with joined() as us:
        policy = build_policy(work, dtype=getattr(torch, options.dtype), frozen=options.frozen)
        phases = measure(work, policy, options.iterations)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        peaks = us.gather(own)
    whole = [sum(parts) for parts in zip(*phases.values(), strict=True)]
    result = {
        "workload": work["name"],
        "variant": options.dtype + " frozen" * options.frozen + " unbounded" * options.unbounded,
        "threads": torch.get_num_threads(),
        **{name: round(statistics.median(seconds), 3) for name, seconds in phases.items()},
        "seconds": [round(one, 3) for one in whole],
        "samples_per_second": round(work["rollout_batch_size"] / statistics.median(whole), 4),
        "processes": len(peaks),
        "peak_rss_mb": sum(peaks),
    }
    if us.is_first:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
