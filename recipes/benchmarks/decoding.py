# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Milliseconds per written token on a GPU: a growing key-value cache against a replayed graph.

    python -m recipes.benchmarks.decoding [--only t5_small gptj_12x768 gptj_6b] [--device cuda]

Random weights with a LoRA adapter, queries of 16 to 32 tokens, 32 tokens written per response, no
early end. Both sides write the same batch in turn; what is timed includes the capture of the
graph. Results go to decoding.json beside this file.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers import PreTrainedTokenizerFast as Fast

from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.families import family_of
from lora_detox.policy.policy import LoraPolicy
from lora_detox.rollout.sampling import sample_responses
from lora_detox.types import Sampling

HERE = Path(__file__).resolve().parent
TOKENS = 32
GPTJ = {"model_type": "gptj", "vocab_size": 50400, "bos_token_id": 1, "eos_token_id": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "t5_small": {"model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64}
    | {"d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
    | {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
    "gptj_12x768": GPTJ | {"n_embd": 768, "n_layer": 12, "n_head": 12, "rotary_dim": 32},
    "gptj_6b": GPTJ | {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64},
}
BATCHES = (16, 128)


def policy_of(name: str, device: str) -> LoraPolicy:
    """Random weights in bf16 with a fresh adapter."""
    config = AutoConfig.for_model(**SHAPES[name])
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device(device):
        backbone = auto.from_config(config, dtype=torch.bfloat16)
        plan = AdapterPlan(rank=16, alpha=32.0)
        model = get_peft_model(backbone.eval(), lora_config(plan, config))
    tokenizer = Fast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="</s>",
    )
    return LoraPolicy(model, tokenizer, family_of(config), with_value_head=False)


@torch.no_grad()
def write(policy: LoraPolicy, batch: int, *, static: bool) -> tuple[torch.Tensor, float]:
    """Token ids of one batch, and seconds."""
    policy.static_cache = static
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 30000, (batch, 32), generator=generator).to(policy.device)
    mask = torch.ones_like(ids).bool()
    left = policy.family.padding_side == "left"
    for row in range(batch):
        pad = row % 17
        mask[row, slice(0, pad) if left else slice(32 - pad, 32)] = False
    uniforms = torch.rand(batch, TOKENS, generator=generator).to(policy.device)
    room = torch.full((batch,), TOKENS, device=policy.device)
    start = time.perf_counter()
    sampling = Sampling(min_new_tokens=TOKENS)  # no row ends early
    responses, _, _ = sample_responses(policy, ids, mask, sampling, room, uniforms)
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    return responses, time.perf_counter() - start


def measure(policy: LoraPolicy, batch: int, rounds: int = 5) -> dict[str, float]:
    """Medians over rounds in turn, after one that warms up both."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    same = 0.0
    for number in range(rounds + 1):
        responses = {}
        for static in (False, True):
            responses[static], spent = write(policy, batch, static=static)
            if number:
                seconds[static].append(spent)
        same = float((responses[False] == responses[True]).float().mean())
    growing, graphed = (1000 * statistics.median(seconds[s]) / TOKENS for s in (False, True))
    return {
        "growing_ms_per_token": growing,
        "graph_ms_per_token": graphed,
        "ratio": growing / graphed,
        "same_tokens": same,
    }


def main() -> None:
    """Every shape and batch, one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    for name in given.only:
        policy = policy_of(name, given.device)
        for batch in BATCHES:
            results[f"{name} x {batch}"] = numbers = measure(policy, batch)
            print(f"{name} x {batch}: {json.dumps(numbers)}", flush=True)
        del policy
    where = torch.cuda.get_device_name() if given.device == "cuda" else given.device
    text = json.dumps({where: results, "torch": torch.__version__}, indent=2) + "\n"
    (HERE / "decoding.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
