"""Writing token by token: a family's cache and the distribution that tokens are drawn from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from lora_detox.policy.families import Writing
from lora_detox.policy.logits import language_logits
from lora_detox.policy.token_stats import sampling_logits
from lora_detox.types import Sampling


class SampledWriting:
    """A `DecodingSession` over a key-value cache.

    Args:
        backbone: whose output matrix turns states into logits.
        writing: the cache.
        sampling: the distribution that tokens are drawn from.
        eos_token_ids: the tokens that a minimum length forbids.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        writing: Writing,
        sampling: Sampling,
        eos_token_ids: tuple[int, ...],
    ) -> None:
        self.backbone, self.writing, self.sampling = backbone, writing, sampling
        self.eos_token_ids, self.position = eos_token_ids, 0

    def next_logits(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B V"]:
        """Append one token to each row, None at the start; logits of the next."""
        logits = language_logits(self.backbone, self.writing.step(token_ids))
        positions = torch.full((len(logits),), self.position, device=logits.device)
        self.position += 1
        return sampling_logits(logits, positions, self.sampling, self.eos_token_ids)

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""
        self.writing.keep(rows)
