# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""What do token statistics ask of the device, and how long do they take?

    TRITON_INTERPRET=1 .venv/bin/python -m recipes.benchmarks.token_stats [--vocabulary 50257]

One chunk of states through the output matrix: logprob and entropy of each token and, in an update,
the derivative with respect to its state. By dtype: operations that start a kernel, and bytes read
and written for each logit, both products included. Each operation reads its operands and writes its
result once; the fused kernel reads the logits a second time where it makes a slope. With
TRITON_INTERPRET=1 the kernel's row is counted without a GPU; with one, leave it out and seconds are
of the GPU.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from lora_detox.machine import chunk_elements
from lora_detox.policy import chunk_stats
from lora_detox.policy.token_stats import token_logprobs
from recipes.benchmarks.counting import METADATA, Counter

ROWS, WIDTH = 16, 64
GPU_WIDTH = 4096
ROUNDS = 20


TOUCHED = {"gather", "scatter_add_", "index", "index_put", "index_put_", "new_ones"}
"""Operations that read or write one number of each row at most."""


class ByteCounter(Counter):
    """Counts bytes of logits read and written too.

    Args:
        logits: how many there are; tensors with fewer elements do not count.
    """

    def __init__(self, logits: int) -> None:
        super().__init__([])
        self.logits, self.moved = logits, 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count and go on."""
        result = super().__torch_dispatch__(func, types, args, kwargs)
        name = func.overloadpacket.__name__
        if func.overloadpacket in METADATA or name in TOUCHED:
            return result
        read = sum(self._bytes(one) for one in args)
        results = result if isinstance(result, tuple) else (result,)
        written = sum(self._bytes(one) for one in results)
        again = read if written and name == "token_stats" else 0
        self.moved += read + again + written
        return result

    def _bytes(self, one: Any) -> int:
        whole = isinstance(one, Tensor) and one.numel() == self.logits
        return one.numel() * one.element_size() if whole else 0


def chunk(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, *, learns: bool
) -> Callable[[], Any]:
    """A call of `token_logprobs` on one chunk.

    Args:
        shape: rows, width of the states, columns.
        dtype: of states and output matrix.
        device: where they are.
        learns: whether the states want a gradient, as in an update.

    Returns:
        The call, without arguments.
    """
    rows, width, columns = shape
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(columns, width, generator=generator).to(device, dtype) / width**0.5
    hidden = torch.randn(rows, width, generator=generator).to(device, dtype)
    ids = torch.randint(columns, (rows,), generator=generator).to(device)
    positions = torch.zeros_like(ids)
    hidden.requires_grad_(learns)

    def to_logits(states: Tensor, _: Tensor) -> Tensor:
        return torch.nn.functional.linear(states, weight)

    return lambda: token_logprobs(hidden, ids, positions, to_logits, columns)


def seconds_of(work: Callable[[], Any]) -> float:
    """Of one call on the GPU, mean of some."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(ROUNDS):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / ROUNDS


def row(columns: int, dtype: torch.dtype, device: torch.device, *, learns: bool) -> str:
    """Counts of one chunk as cells of a table, and on a GPU its time."""
    on_gpu = device.type == "cuda"
    rows = max(1, chunk_elements(device) // columns) if on_gpu else ROWS
    shape = (rows, GPU_WIDTH if on_gpu else WIDTH, columns)
    work = chunk(shape, dtype, device, learns=learns)
    work()  # the kernel is tried and compiled
    with ByteCounter(rows * columns) as counter:
        work()
    time_cell = f"{1e3 * seconds_of(work):.2f}" if on_gpu else "-"
    moved = counter.moved / (rows * columns)
    return f"{counter.counts.operations} | {moved:.0f} | {time_cell}"


def main() -> None:
    """One line for each dtype, use and way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=50_257)
    columns = parser.parse_args().vocabulary
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    device = torch.device("cuda" if torch.cuda.is_available() and not interpreted else "cpu")
    print("| dtype | use | way | operations | bytes a logit | ms |\n|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for learns in (False, True):
            use, name = ("update" if learns else "scoring"), str(dtype).removeprefix("torch.")
            with patch.object(chunk_stats, "_fused", return_value=None):
                print(f"| {name} | {use} | torch | {row(columns, dtype, device, learns=learns)} |")
            if chunk_stats._fused(torch.zeros(1, 2, dtype=dtype, device=device)):
                print(f"| | | kernel | {row(columns, dtype, device, learns=learns)} |")


if __name__ == "__main__":
    main()
