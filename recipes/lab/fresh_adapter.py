# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""An untrained adapter of a kind that `adapter=` does not make, to begin a training from.

    python -m recipes.lab.fresh_adapter miss BASE OUT [--rank 16] [--scope decoder]
    python -m lora_detox policy.adapter=OUT ...

It sits on every linear layer but the output matrix. OUT is a PEFT adapter folder.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import MissConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

KINDS: dict[str, Any] = {"miss": MissConfig}


def write_fresh(kind: str, base: str, out: Path, *, rank: int, scope: str, seed: int) -> None:
    """Write the adapter.

    Args:
        kind: of KINDS.
        base: folder or hub id of the model.
        out: folder to write.
        rank: of the adapter.
        scope: all | decoder: an encoder-decoder's encoder stays bare.
        seed: of the draws.
    """
    torch.manual_seed(seed)
    seq2seq = AutoConfig.from_pretrained(base).is_encoder_decoder
    auto = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
    model = auto.from_pretrained(base, dtype=torch.float32)
    names = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)]
    targets = [name for name in names if not name.endswith("lm_head")]
    if scope == "decoder":
        targets = [name for name in targets if name.startswith("decoder")]
    config = KINDS[kind](
        r=rank,
        target_modules=targets,
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    get_peft_model(model, config).save_pretrained(part)
    part.replace(out)  # whole, or not there


def main() -> None:
    """Read the command line, write the adapter."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("base", help="folder or hub id of the model")
    parser.add_argument("out", type=Path, help="folder of the adapter")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--scope", choices=("all", "decoder"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_fresh(
        given.kind,
        given.base,
        given.out,
        rank=given.rank,
        scope=given.scope,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
