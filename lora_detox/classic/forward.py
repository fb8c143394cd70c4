"""Logprobs, values and entropies of given responses, by the engine's own passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lora_detox.classic.core import entropy_from_logits, logprobs_from_logits
from lora_detox.classic.layout import Layout, Rows, lay_out, mask_of, trl_mask_of, width_of
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.policy.families import family_of
from lora_detox.policy.logits import language_logits, raw_logits
from lora_detox.policy.token_stats import token_logprobs
from lora_detox.rollout.passes import Passes


@dataclass(frozen=True, kw_only=True)
class ForwardOutput:
    """Numbers of given responses; [B, T-1], 0 where nothing was sampled.

    Attributes:
        logprobs: of the sampled tokens, nats.
        values: of the states they were sampled from.
        entropy: of their distributions, nats; without gradient; 0 in a pass without gradients.
        logits: [B, T-1, V], where requested.
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    logits: Tensor | None = None

    def in_order(self, order: Tensor) -> "ForwardOutput":
        """The same rows in another order."""
        order = order.to(self.logprobs.device)
        return ForwardOutput(
            logprobs=self.logprobs[order],
            values=self.values[order],
            entropy=self.entropy[order],
            logits=None if self.logits is None else self.logits[order],
        )


@dataclass(frozen=True, kw_only=True)
class ResponseReader:
    """Runs policy or reference over queries and responses.

    Attributes:
        layout: how rows are padded.
        device: where the passes run.
        rows_per_pass: most rows of a forward pass.
        autocast: gives the context of mixed precision in which passes run.
    """

    layout: Layout
    device: torch.device
    rows_per_pass: int
    autocast: Callable[[], AbstractContextManager[Any]]

    def read(
        self,
        model: PreTrainedModelWrapper,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        inputs: Mapping[str, Tensor],
        *,
        with_logits: bool,
    ) -> ForwardOutput:
        """All rows, in chunks of similar length, back in their order; dropout is off.

        Args:
            model: policy or reference.
            queries: token ids of each query.
            responses: token ids of each response.
            inputs: of `layout.model_inputs`.
            with_logits: return the logits too, which costs memory.

        Returns:
            Tensors in the classic layout, with gradient where enabled.
        """
        lengths = [torch.tensor([len(row) for row in rows]) for rows in (queries, responses)]
        order = (lengths[0] + lengths[1]).argsort(descending=True, stable=True)
        passes = Passes.on(self.device, self.rows_per_pass, dtype=model.backbone.dtype)
        sizes = passes.cut(lengths[0][order].tolist(), lengths[1][order].tolist())
        parts, width = [], width_of(inputs)
        with without_dropout(model), self.autocast():
            for chunk in order.split(sizes):
                if self.layout.trl_masks:
                    some = {name: part[chunk.to(part.device)] for name, part in inputs.items()}
                    parts.append(forward_whole(model, some, with_logits=with_logits))
                else:
                    picked = [[rows[i] for i in chunk.tolist()] for rows in (queries, responses)]
                    rows = lay_out(picked[0], picked[1], self.layout, width)
                    parts.append(forward_rows(model, rows, width, with_logits=with_logits))
        return concatenate(parts).in_order(order.argsort())

    def mask(
        self,
        queries: Sequence[Tensor],
        responses: Sequence[Tensor],
        inputs: Mapping[str, Tensor],
        response_masks: Sequence[Tensor] | None,
    ) -> Tensor:
        """1 at the tokens that count, in the classic layout [B, T-1].

        Args:
            queries: token ids of each query.
            responses: token ids of each response.
            inputs: of `layout.model_inputs`.
            response_masks: the program's, or None where every token counts.

        Returns:
            A mask of integers.
        """
        if self.layout.trl_masks:
            return trl_mask_of(inputs["decoder_attention_mask"], response_masks)
        width = width_of(inputs)
        rows = lay_out(queries, responses, self.layout, width)
        return mask_of(rows, width, responses, response_masks)


@torch.no_grad()
def forward_both(
    forward_pass: Callable[
        [PreTrainedModelWrapper, Sequence[Tensor] | None],
        tuple[Tensor, Tensor | None, Tensor, Tensor],
    ],
    model: PreTrainedModelWrapper,
    reference: AbstractContextManager[PreTrainedModelWrapper],
    response_masks: Sequence[Tensor] | None,
) -> dict[str, Tensor]:
    """What policy and reference make of the responses when they were sampled.

    Args:
        forward_pass: from a model and response masks to logprobs, logits, values and mask.
        model: the policy.
        reference: gives the reference while it is entered.
        response_masks: the program's, or None.

    Returns:
        `logprobs`, `ref_logprobs`, `values` and `masks` [B, T-1]; `policy` and `reference` are what
        the KL penalty compares: logprobs, or those of the whole vocabulary where the forward pass
        gives logits.
    """
    logprobs, logits, values, masks = forward_pass(model, response_masks)
    with reference as ref_model:
        ref_logprobs, ref_logits, _, _ = forward_pass(ref_model, None)
    sampled = {"logprobs": logprobs, "ref_logprobs": ref_logprobs}
    sampled |= {"values": values, "masks": masks, "policy": logprobs, "reference": ref_logprobs}
    if logits is not None and ref_logits is not None:
        sampled["policy"] = logits.log_softmax(-1)
        sampled["reference"] = ref_logits.log_softmax(-1)
    return sampled


def forward_rows(
    model: PreTrainedModelWrapper, rows: Rows, width: int, *, with_logits: bool = False
) -> ForwardOutput:
    """One pass over some rows; only states behind actions meet the vocabulary.

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
        logprobs, entropy = _without_logits(backbone, hidden, tokens)
    values = model.v_head(hidden.to(model.v_head.summary.weight.device))[..., 0]
    return ForwardOutput(
        logprobs=rows.spread(logprobs, width),
        values=rows.spread(values.to(logprobs.device), width),
        entropy=rows.spread(entropy, width),
        logits=rows.spread(logits, width) if with_logits and logits is not None else None,
    )


def _without_logits(backbone: Any, hidden: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logprobs and, in updates, entropies without keeping logits or training the matrix."""

    def to_logits(chunk: Tensor, positions: Tensor) -> Tensor:
        return raw_logits(backbone, chunk)

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


def forward_whole(
    model: PreTrainedModelWrapper, inputs: dict[str, Tensor], *, with_logits: bool = False
) -> ForwardOutput:
    """The same by one forward of the whole model, start token and all: only for TRL's masks."""
    logits, _, values = model(**inputs)
    logits = logits[:, :-1]
    with torch.no_grad():
        entropy = entropy_from_logits(logits)
    logprobs = logprobs_from_logits(logits, inputs["decoder_input_ids"][:, 1:])
    return ForwardOutput(
        logprobs=logprobs,
        values=values[:, :-1],
        entropy=entropy,
        logits=logits if with_logits else None,
    )


def concatenate(parts: Sequence[ForwardOutput]) -> ForwardOutput:
    """Several chunks of rows as one."""
    logits = [part.logits for part in parts if part.logits is not None]
    return ForwardOutput(
        logprobs=torch.cat([part.logprobs for part in parts]),
        values=torch.cat([part.values for part in parts]),
        entropy=torch.cat([part.entropy for part in parts]),
        logits=torch.cat(logits) if logits else None,
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
