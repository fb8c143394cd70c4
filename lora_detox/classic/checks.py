"""What `step` is given, checked before anything runs."""

from collections.abc import Sequence

import torch
from torch import Tensor


def checked(
    batch_size: int | None,
    queries: Sequence[Tensor],
    responses: Sequence[Tensor],
    scores: Sequence[Tensor],
    masks: Sequence[Tensor] | None,
    device: torch.device,
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor] | None]:
    """The arguments of a step, on the device.

    Args:
        batch_size: how many of each there must be; None for any number.
        queries: token ids, each one-dimensional.
        responses: token ids, each one-dimensional.
        scores: 0-d tensors or tensors of one element.
        masks: 1 at the response tokens that count, or None.
        device: where they go.

    Returns:
        Queries, responses, scores (0-d) and masks.

    Raises:
        ValueError: no list, no tensors, another number of them, or scores of more dimensions.
    """
    named = {"queries": queries, "responses": responses, "scores": scores}
    if masks is not None:
        named["response_masks"] = masks
    for name, tensors in named.items():
        if not isinstance(tensors, list):
            raise ValueError(f"{name} must be a list of tensors, got {type(tensors)}")
        wrong = next((t for t in tensors if not isinstance(t, Tensor)), None)
        if wrong is not None or not tensors:
            raise ValueError(f"{name} must be a list of tensors, got {type(wrong)} in it")
        if batch_size is not None and len(tensors) != batch_size:
            raise ValueError(f"batch_size is {batch_size}, but {name} has {len(tensors)} elements")
    for score in scores:
        if score.dim() > 1 or score.numel() != 1:
            raise ValueError(f"a score must be one number, got shape {tuple(score.shape)}")
    for name in ("queries", "responses"):
        flat = next((t for t in named[name] if t.dim() != 1), None)
        if flat is not None:
            raise ValueError(f"{name} must be one-dimensional, got shape {tuple(flat.shape)}")
    return (
        [tensor.to(device) for tensor in queries],
        [tensor.to(device) for tensor in responses],
        [tensor.to(device).reshape(()) for tensor in scores],
        None if masks is None else [tensor.to(device) for tensor in masks],
    )


def without_silence(
    responses: list[Tensor], masks: list[Tensor] | None, eos_id: int | None
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Responses of which none is empty: a policy that says nothing has sampled end-of-sequence."""
    if all(len(response) for response in responses) or eos_id is None:
        return responses, masks
    if masks is not None:
        masks = [
            mask if len(response) else torch.ones_like(response).new_ones(1)
            for mask, response in zip(masks, responses, strict=True)
        ]
    return [r if len(r) else r.new_tensor([eos_id]) for r in responses], masks
