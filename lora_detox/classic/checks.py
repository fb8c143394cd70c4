"""What a trainer and its `step` are given, checked before anything runs."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from lora_detox.classic.config import PPOConfig
from lora_detox.classic.models import PreTrainedModelWrapper


def check_trainer_arguments(
    config: Any, model: Any, tokenizer: Any, dataset: Any, lr_scheduler: Any
) -> None:
    """Raise a ValueError for what no trainer can be built from."""
    wanted = (
        ("config", config, PPOConfig),
        ("model", model, PreTrainedModelWrapper),
        ("tokenizer", tokenizer, PreTrainedTokenizerBase),
    )
    for name, given, kind in wanted:
        if not isinstance(given, kind):
            raise ValueError(f"PPOTrainer: {name} must be a {kind.__name__}, got {type(given)}")
    if dataset is not None and not isinstance(dataset, TorchDataset | datasets.Dataset):
        raise ValueError(
            f"PPOTrainer: dataset must be a torch or datasets Dataset, got {type(dataset)}; "
            "wrap a list with datasets.Dataset.from_list"
        )
    schedulers = torch.optim.lr_scheduler.LRScheduler
    if lr_scheduler is not None and not isinstance(lr_scheduler, schedulers):
        raise ValueError(
            "PPOTrainer: lr_scheduler must be a torch.optim.lr_scheduler.LRScheduler, "
            f"got {type(lr_scheduler)}"
        )
    if config.push_to_hub_if_best_kwargs and "repo_id" not in config.push_to_hub_if_best_kwargs:
        raise ValueError(
            "PPOConfig: push_to_hub_if_best_kwargs has no 'repo_id'; "
            "add repo_id='owner/name', or leave the mapping empty"
        )
    _check_that_something_learns(model)


def _check_that_something_learns(model: PreTrainedModelWrapper) -> None:
    """Refuse a policy of which nothing, or only the value head, is trainable."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "PPOTrainer: the model has no trainable parameter; call requires_grad_(True) on what "
            "should learn, or load an adapter with is_trainable=True"
        )
    policy = model.pretrained_model
    if model.is_peft_model and not any(p.requires_grad for p in policy.parameters()):
        raise ValueError(
            "PPOTrainer: only the value head can learn: the adapter is frozen; load it with "
            "is_trainable=True"
        )


def check_step_arguments(
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
        _check_list(name, tensors, batch_size)
    for score in scores:
        if score.dim() > 1 or score.numel() != 1:
            raise ValueError(
                f"step: a score must be one number, got shape {tuple(score.shape)}; "
                "pass one torch.tensor(number) per response"
            )
    for name in ("queries", "responses"):
        wrong = next((tensor for tensor in named[name] if tensor.dim() != 1), None)
        if wrong is not None:
            raise ValueError(
                f"step: {name} must be one-dimensional, got shape {tuple(wrong.shape)}; "
                "squeeze(0) takes a dimension of one off"
            )
    return (
        [tensor.to(device) for tensor in queries],
        [tensor.to(device) for tensor in responses],
        [tensor.to(device).reshape(()) for tensor in scores],
        None if masks is None else [tensor.to(device) for tensor in masks],
    )


def _check_list(name: str, tensors: Any, batch_size: int | None) -> None:
    """Refuse what is no list of tensors, or of another length than the batch."""
    if not isinstance(tensors, list):
        raise ValueError(f"step: {name} must be a list of tensors, got {type(tensors)}")
    if not tensors:
        raise ValueError(f"step: {name} must be a list of tensors, got an empty list")
    wrong = next((tensor for tensor in tensors if not isinstance(tensor, Tensor)), None)
    if wrong is not None:
        raise ValueError(f"step: {name} must be a list of tensors, got {type(wrong)} in it")
    if batch_size is not None and len(tensors) != batch_size:
        raise ValueError(
            f"step: batch_size is {batch_size}, but {name} has {len(tensors)} elements; pass "
            "batch_size of them, or set trainer.config.batch_size before"
        )


def fill_empty_responses(
    responses: list[Tensor], masks: list[Tensor] | None, eos_id: int | None
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Replace each empty response by end-of-sequence, which is what its policy sampled.

    Args:
        responses: token ids, each one-dimensional.
        masks: of the responses, or None.
        eos_id: end-of-sequence; None leaves everything as it is.

    Returns:
        Responses, and masks with a 1 for each response that was empty.
    """
    if all(len(response) for response in responses) or eos_id is None:
        return responses, masks
    if masks is not None:
        masks = [
            mask if len(response) else torch.ones_like(response).new_ones(1)
            for mask, response in zip(masks, responses, strict=True)
        ]
    return [r if len(r) else r.new_tensor([eos_id]) for r in responses], masks
