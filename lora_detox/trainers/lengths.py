"""Rows of like length in a batch: less padding, in an order that a resumed training repeats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochSampler(LengthGroupedSampler):  # type: ignore[misc]  # transformers ships no types
    """Texts of like length together, in an order that seed and epoch alone decide.

    A resumed training then reads the rows that are left of its epoch.

    Args:
        batch_size: rows that are read together.
        lengths: tokens of each row.
        seed: of the order.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Of which epoch the next order is."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        rows: Iterator[int] = super().__iter__()
        return rows


def row_lengths(rows: Mapping[str, Sequence[Any]]) -> list[int]:
    """Tokens of each row: those that are read, and those of a target of its own.

    Args:
        rows: columns `input_ids` and, where there are any, `labels`: one class, or a target's ids.

    Returns:
        One number per row.
    """
    read = [len(ids) for ids in rows["input_ids"]]
    targets = rows.get("labels", ())
    if not targets or isinstance(targets[0], int):
        return read
    return [one + len(target) for one, target in zip(read, targets, strict=True)]


def grouped_by_length(kind: type[Trainer]) -> type[Trainer]:
    """A trainer of this kind whose batches hold rows of like length.

    Args:
        kind: of Transformers, or a subclass.

    Returns:
        A subclass of it.
    """

    class Grouped(kind):  # type: ignore[misc]  # transformers ships no types
        def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
            rows = self.train_dataset if train_dataset is None else train_dataset
            read = [name for name in ("input_ids", "labels") if name in rows.column_names]
            lengths = row_lengths({name: rows[name] for name in read})
            return EpochSampler(self.args.train_batch_size, lengths, self.args.data_seed)

    return Grouped
