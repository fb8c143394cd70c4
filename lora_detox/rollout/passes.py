"""Rows -> minibatches of random rows -> forward passes over rows of similar length."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lora_detox.machine import GPU_OVERHEAD, pass_overhead
from lora_detox.processes import processes


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How many rows go through the model together.

    Attributes:
        rows: most rows of a pass.
        tokens: most tokens of a pass, padding included; a single row may exceed it; None has no
            bound.
        overhead: cost of a pass beside its tokens, in tokens, >= 0. A large one makes passes as few
            as the bounds allow, a small one splits where padding costs more than another pass.
    """

    rows: int
    tokens: int | None = None
    overhead: int = GPU_OVERHEAD

    @classmethod
    def on(
        cls,
        device: torch.device,
        rows: int,
        tokens: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> "Passes":
        """With the overhead of a device, for a model of some dtype."""
        return cls(rows=rows, tokens=tokens, overhead=pass_overhead(device, dtype))

    def cut(self, query_lengths: list[int], response_lengths: list[int]) -> list[int]:
        """Where to cut rows, sorted by length, into forward passes of least cost.

        A pass over n rows costs n * (longest query + longest response), as rows are padded to their
        longest, plus `overhead` for itself.

        Args:
            query_lengths: tokens of each query, in order.
            response_lengths: tokens of each response, in order.

        Returns:
            Rows of each pass; their sum is the number of rows.
        """
        count = len(query_lengths)
        best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n rows: cost, last size
        for end in range(1, count + 1):
            options = []
            queries = responses = 0
            for size in range(1, min(self.rows, end) + 1):
                queries = max(queries, query_lengths[end - size])
                responses = max(responses, response_lengths[end - size])
                tokens = size * (queries + responses)
                if self.tokens is None or tokens <= self.tokens or size == 1:
                    options.append((best[end - size][0] + tokens + self.overhead, size))
            best.append(min(options))
        sizes, end = [], count
        while end:
            sizes.append(best[end][1])
            end -= best[end][1]
        return sizes[::-1]


def partition_rows(
    query_lengths: Int[Tensor, "B"],
    response_lengths: Int[Tensor, "B"],
    *,
    minibatch_size: int,
    passes: Passes,
    seed: int,
) -> tuple[tuple[Int[Tensor, "_"], ...], ...]:
    """Random minibatches, each cut into microbatches of rows of similar length.

    Args:
        query_lengths: tokens of each query.
        response_lengths: tokens of each response.
        minibatch_size: rows per optimizer step.
        passes: how a minibatch is cut into microbatches, one forward pass each.
        seed: of the shuffle.

    Returns:
        Row indices by minibatch and microbatch; every row occurs once, of several processes in one
        of them. A minibatch of which this process has no row is empty.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(query_lengths), generator=generator).to(query_lengths.device)
    lengths, minibatches = query_lengths + response_lengths, []
    for rows in order.split(minibatch_size):
        longest_first = rows[lengths[rows].argsort(descending=True, stable=True)]
        longest_first = processes().share(longest_first)
        sizes = passes.cut(
            query_lengths[longest_first].tolist(), response_lengths[longest_first].tolist()
        )
        minibatches.append(longest_first.split(sizes) if sizes else ())
    return tuple(minibatches)
