"""Writing token by token: a family's cache and the distribution that tokens are drawn from."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from lora_detox.policy.families import Writing
from lora_detox.policy.logits import language_logits
from lora_detox.policy.token_stats import sampling_logits
from lora_detox.types import Sampling


@runtime_checkable
class LogitsEdit(Protocol):
    """What a decoding does to the logits of a batch, before temperature, top-k and top-p."""

    def edit(
        self, token_ids: Int[Tensor, "B"] | None, logits: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B V"]:
        """Other logits for the next token; `token_ids` were appended last, None at the start."""

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""


EditFactory = Callable[[Int[Tensor, "B Q"], Bool[Tensor, "B Q"], int | None], LogitsEdit]
"""Queries, their mask and the room for new tokens -> the edit of that batch."""


class SampledWriting:
    """A `DecodingSession` over a key-value cache.

    Args:
        backbone: whose output matrix turns states into logits.
        writing: the cache.
        sampling: the distribution that tokens are drawn from.
        eos_token_ids: the tokens that a minimum length forbids.
        edit: changes the model's logits first; None leaves them.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        writing: Writing,
        sampling: Sampling,
        eos_token_ids: tuple[int, ...],
        edit: LogitsEdit | None = None,
    ) -> None:
        self.backbone, self.writing, self.sampling = backbone, writing, sampling
        self.eos_token_ids, self.position, self.edit = eos_token_ids, 0, edit

    def next_logits(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B V"]:
        """Append one token to each row, None at the start; logits of the next."""
        logits = language_logits(self.backbone, self.writing.step(token_ids))
        if self.edit is not None:
            logits = self.edit.edit(token_ids, logits)
        positions = torch.full((len(logits),), self.position, device=logits.device)
        self.position += 1
        return sampling_logits(logits, positions, self.sampling, self.eos_token_ids)

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""
        self.writing.keep(rows)
        if self.edit is not None:
            self.edit.keep(rows)
