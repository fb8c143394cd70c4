"""DExperts (Liu et al. 2021): away from what an adapter that learned toxic text would write."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from lora_detox.policy.logits import language_logits
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.token_stats import nucleus

TOXIC = "toxic"
"""Name of the anti-expert's adapter beside that of the model itself."""


class AntiExpert:
    """z + alpha (z - z_toxic) for the rows of a batch; a `LogitsEdit`.

    One backbone and two key-value caches: the adapter is exchanged for each pass. The expert of
    the paper is the model itself.

    Args:
        policy: with the anti-expert loaded as adapter `TOXIC`.
        query_ids: padded on the family's side.
        query_mask: True at real tokens.
        room: most tokens that will be written.
        alpha: above 0.
        top_p: candidates are the smallest set of tokens with this probability by the model itself,
            chosen before the logits are combined (section 3.1 of the paper); None takes all.
    """

    def __init__(
        self,
        policy: LoraPolicy,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        room: int | None,
        *,
        alpha: float,
        top_p: float | None,
    ) -> None:
        self.backbone, self.alpha, self.top_p = policy.backbone, alpha, top_p
        with using(self.backbone, TOXIC):
            self.writing = policy.write(query_ids, query_mask, room)

    def edit(
        self, token_ids: Int[Tensor, "B"] | None, logits: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B V"]:
        """Logits of the next token, away from the anti-expert's."""
        with using(self.backbone, TOXIC):
            toxic = language_logits(self.backbone, self.writing.step(token_ids))
        combined = logits + self.alpha * (logits - toxic)
        if self.top_p is None:
            return combined
        return combined.masked_fill(~nucleus(logits, self.top_p), -torch.inf)

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""
        self.writing.keep(rows)


@contextmanager
def using(backbone: PreTrainedModel, adapter: str) -> Iterator[None]:
    """Within this context the layers of a backbone use an adapter; those without it use none.

    PEFT's own switch also says which parameters learn, and takes longer.

    Args:
        backbone: with the adapter loaded.
        adapter: its name.
    """
    layers: list[Any] = [part for part in backbone.modules() if isinstance(part, BaseTunerLayer)]
    active = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [adapter]
        yield
    finally:
        for layer, name in zip(layers, active, strict=True):
            layer._active_adapter = name


@contextmanager
def apart(policy: LoraPolicy) -> Iterator[None]:
    """Within this context no adapter is merged into weights, so that adapters can be exchanged.

    Args:
        policy: that writes.
    """
    policy.merges = False
    try:
        yield
    finally:
        policy.merges = True
