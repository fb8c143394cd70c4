"""What a model says of given responses, in the classic layout, by the engine's own passes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lora_detox.classic.core import entropy_from_logits, logprobs_from_logits
from lora_detox.classic.layout import Rows
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.policy.families import family_of, language_logits
from lora_detox.policy.token_stats import token_logprobs


@dataclass(frozen=True, kw_only=True)
class Said:
    """Numbers of given responses; [B, T-1], 0 where nothing was sampled.

    Attributes:
        logprobs: of the sampled tokens, nats.
        values: of the states they were sampled from.
        entropy: of their distributions, nats; without gradient; 0 in a pass without gradients.
        logits: [B, T-1, V], where asked for.
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    logits: Tensor | None = None

    def in_order(self, order: Tensor) -> "Said":
        """The same rows in another order."""
        order = order.to(self.logprobs.device)
        return Said(
            logprobs=self.logprobs[order],
            values=self.values[order],
            entropy=self.entropy[order],
            logits=None if self.logits is None else self.logits[order],
        )


def say(
    model: PreTrainedModelWrapper, rows: Rows, width: int, *, with_logits: bool = False
) -> Said:
    """Logprobs, values and entropies of some rows; only states behind actions meet the vocabulary.

    Args:
        model: policy or reference.
        rows: the padded rows.
        width: T-1 of the classic layout.
        with_logits: return the logits too, which costs memory.

    Returns:
        Tensors in the classic layout, with gradient where enabled.
    """
    backbone, mask = model.backbone, rows.response_mask
    states = family_of(backbone.config).response_hidden(
        backbone, rows.query_ids, rows.query_mask, rows.response_ids, mask
    )
    hidden, tokens = states[mask], rows.response_ids[mask]
    logits = None
    if with_logits or _learns(backbone.get_output_embeddings()):
        logits = language_logits(backbone, hidden)
        logprobs = logprobs_from_logits(logits, tokens)
        entropy = entropy_from_logits(logits.detach())
    else:
        logprobs, entropy = _lean(backbone, hidden, tokens)
    values = model.v_head(hidden.to(model.v_head.summary.weight.device))[..., 0]
    return Said(
        logprobs=rows.spread(logprobs, width),
        values=rows.spread(values.to(logprobs.device), width),
        entropy=rows.spread(entropy, width),
        logits=rows.spread(logits, width) if with_logits and logits is not None else None,
    )


def _lean(backbone: Any, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logprobs and, in updates, entropies without keeping logits or training the matrix."""

    def to_logits(chunk: Tensor, positions: Tensor) -> Tensor:
        return language_logits(backbone, chunk)

    vocabulary = backbone.get_output_embeddings().weight.shape[0]
    return token_logprobs(
        hidden,
        tokens,
        torch.zeros_like(tokens),
        to_logits,
        vocabulary,
        with_entropy=torch.is_grad_enabled(),
    )


def _learns(head: nn.Module) -> bool:
    """True where the output matrix is trained, so that it must get its gradient."""
    return torch.is_grad_enabled() and any(p.requires_grad for p in head.parameters())


def say_plainly(
    model: PreTrainedModelWrapper, inputs: dict[str, Tensor], *, with_logits: bool = False
) -> Said:
    """The same by one forward of the whole model, start token and all: only for strict masks."""
    logits, _, values = model(**inputs)
    logits = logits[:, :-1]
    with torch.no_grad():
        entropy = entropy_from_logits(logits)
    logprobs = logprobs_from_logits(logits, inputs["decoder_input_ids"][:, 1:])
    return Said(
        logprobs=logprobs,
        values=values[:, :-1],
        entropy=entropy,
        logits=logits if with_logits else None,
    )


def stack(parts: Sequence[Said]) -> Said:
    """Several chunks of rows as one."""
    with_logits = parts[0].logits is not None
    return Said(
        logprobs=torch.cat([part.logprobs for part in parts]),
        values=torch.cat([part.values for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
        logits=torch.cat([part.logits for part in parts if part.logits is not None])
        if with_logits
        else None,
    )


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout off, gradient checkpointing on: the mode of every pass of the trainer.

    Transformers ties checkpointing to training mode, so layers that checkpoint are put into it,
    with their own dropout rates at 0; everything else is in eval mode. The mode a program chose
    comes back afterwards.

    Args:
        model: what will be run.

    Yields:
        Nothing.
    """
    modes = {module: module.training for module in model.modules()}
    rates: list[tuple[nn.Module, str, Any]] = []
    model.eval()
    if torch.is_grad_enabled():
        for module in modes:
            if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
                module.training = True
                own = [k for k, v in vars(module).items() if "drop" in k and isinstance(v, float)]
                rates += [(module, name, getattr(module, name)) for name in own]
                for name in own:
                    setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for module, name, rate in rates:
            setattr(module, name, rate)
