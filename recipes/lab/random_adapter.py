# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""A random adapter as large as a trained one: the control that knows nothing of any training.

    python -m recipes.lab.random_adapter RUN_OR_ADAPTER OUT [--seed 0]

Each layer's update B A is replaced by a random one of the same rank and Frobenius norm: both
factors are drawn from a normal distribution, and B is scaled. OUT is a PEFT adapter folder on the
same base.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_detox.policy.adapter_kinds import changes_base, init_of, kind_of

WEIGHTS = "adapter_model.safetensors"
FACTORS = ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B"))
"""Ends of the names of A [r, in] and B [out, r], of a linear layer and of an embedding."""


def update_norm(a: Tensor, b: Tensor) -> float:
    """Frobenius norm of B A, without the product: its square is the trace of A A^T B^T B."""
    a, b = a.double(), b.double()
    return float(((a @ a.T) * (b.T @ b)).sum().clamp(min=0).sqrt())


def factor_names(tensors: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of A and B of each layer, in the order of the alphabet."""
    for name in sorted(tensors):
        for end_a, end_b in FACTORS:
            if name.endswith(end_a):
                yield name, name.removesuffix(end_a) + end_b


def randomised(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same layers with random updates of the same norms.

    Args:
        tensors: of an adapter's file, by PEFT's names.
        seed: of the draws.

    Returns:
        Factors in fp32, as bf16 would round the norms; other tensors as they are.
    """
    generator, drawn = torch.Generator().manual_seed(seed), dict(tensors)
    for name_a, name_b in factor_names(tensors):
        shapes = tensors[name_a].shape, tensors[name_b].shape
        a, b = (torch.randn(*one, generator=generator, dtype=torch.float64) for one in shapes)
        norm = update_norm(tensors[name_a], tensors[name_b])
        drawn[name_a] = a.float()
        drawn[name_b] = (b * (norm / update_norm(a.float(), b))).float()
    return drawn


def check(folder: Path) -> None:
    """Refuse an adapter whose update is more than the product of two factors.

    Args:
        folder: of an adapter.

    Raises:
        SystemExit: DoRA, trained biases or whole modules, an adapter that changed its base, or
            another kind than LoRA.
    """
    config: Any = PeftConfig.from_pretrained(str(folder))
    more = [
        key
        for key in ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices")
        if getattr(config, key, None)
    ]
    if getattr(config, "bias", "none") != "none":
        more.append("bias")
    if kind_of(config) != "LORA" or more or changes_base(config):
        kind = ", ".join([kind_of(config), *more])
        raise SystemExit(
            f"{folder}: got an adapter of {kind} (init {init_of(config)}); "
            "want one whose update is the product of LoRA's two factors: adapter=lora or rslora"
        )


def write_random(source: Path, out: Path, seed: int) -> None:
    """Write a random adapter beside a trained one.

    Args:
        source: folder of a run, or of an adapter.
        out: folder to write; one that is there must be empty.
        seed: of the draws.

    Raises:
        SystemExit: no adapter, one of another kind, or a folder that holds something.
    """
    folder = source / "adapter" if (source / "adapter" / WEIGHTS).is_file() else source
    if not (folder / WEIGHTS).is_file():
        raise SystemExit(f"{source}: got no {WEIGHTS}; want the folder of a run or of an adapter")
    check(folder)
    if out.is_dir() and any(out.iterdir()):
        raise SystemExit(f"{out}: got a folder that is not empty; want another one")
    drawn = randomised(load_file(folder / WEIGHTS), seed)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copy(folder / "adapter_config.json", part)
    save_file(drawn, part / WEIGHTS, metadata={"format": "pt"})
    part.replace(out)  # whole, or not there


def main() -> None:
    """Read the command line, write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of a run or of an adapter")
    parser.add_argument("out", type=Path, help="folder of the random adapter")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_random(given.source, given.out, given.seed)
    print(f"{given.out}: as large as {given.source}, seed {given.seed}")


if __name__ == "__main__":
    main()
