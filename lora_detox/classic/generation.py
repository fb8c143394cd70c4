"""Responses through the wrapped model's own `generate`, with dropout off and LoRA merged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_detox.classic.layout import pad
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.policy.frozen import merged
from lora_detox.special_tokens import id_list


@dataclass(frozen=True, kw_only=True)
class GenerationTask:
    """How responses are generated.

    Attributes:
        batch_size: queries that are answered together.
        length_sampler: draws `max_new_tokens` for each batch.
        eos_ids: a response is cut after the first of them; none leave the rows as `generate` gave
            them.
        return_prompt: leave the query before the response of a decoder-only model.
        encoder_decoder: the model's family; its start token always stays.
        pad_id: fills the padding.
        options: generation keywords.
    """

    batch_size: int
    length_sampler: Callable[[], int] | None
    eos_ids: tuple[int, ...]
    return_prompt: bool
    encoder_decoder: bool
    pad_id: int
    options: dict[str, Any]


def query_list(query_tensor: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One or more queries as a list of one-dimensional tensors.

    Args:
        query_tensor: token ids of one query, or a list of them.

    Returns:
        A list.

    Raises:
        ValueError: a tensor that is not one-dimensional.
    """
    queries = [query_tensor] if isinstance(query_tensor, Tensor) else list(query_tensor)
    wrong = next((query for query in queries if query.dim() != 1), None)
    if wrong is not None:
        raise ValueError(
            "generate: query_tensor must be a tensor of shape [Q] or a list of such tensors, got "
            f"shape {tuple(wrong.shape)}; list(rows) makes a list of the rows of a batch"
        )
    return queries


def end_ids(own: int | None, options: dict[str, Any], defaults: Any) -> tuple[int, ...]:
    """Where a response is cut: at the tokenizer's end, and at each that `generate` stops at.

    Args:
        own: the tokenizer's end.
        options: generation keywords, which replace the defaults.
        defaults: generation settings of the model.

    Returns:
        Ids without repetition; -1, with which old programs never stop, is none.
    """
    stops = options.get("eos_token_id", getattr(defaults, "eos_token_id", None))
    ids = id_list(own) + id_list(stops.tolist() if isinstance(stops, Tensor) else stops)
    return tuple(dict.fromkeys(one for one in ids if one >= 0))


@torch.no_grad()
def generate_responses(model: Any, queries: Sequence[Tensor], task: GenerationTask) -> list[Tensor]:
    """Responses to any number of queries.

    Args:
        model: a value-head model.
        queries: token ids, each one-dimensional.
        task: how.

    Returns:
        One tensor of token ids for each query. What stands before a response is not searched for
        its end.
    """
    responses = []
    with generation_mode(model):
        for start in range(0, len(queries), task.batch_size):
            batch = queries[start : start + task.batch_size]
            for query, row in zip(batch, _generate_batch(model, batch, task), strict=True):
                before = 1 if task.encoder_decoder else len(query)
                ends = torch.isin(row[before:], row.new_tensor(task.eos_ids)).nonzero()
                stop = before + int(ends[0]) + 1 if len(ends) else len(row)
                whole = task.return_prompt or task.encoder_decoder
                responses.append(row[0 if whole else before : stop])
    return responses


def _generate_batch(model: Any, queries: Sequence[Tensor], task: GenerationTask) -> list[Tensor]:
    """Rows of `generate`: query and response, or start token and response."""
    options = dict(task.options)
    if task.length_sampler is not None:
        options["max_new_tokens"] = task.length_sampler()
    ids, mask = pad(queries, task.pad_id, "right" if task.encoder_decoder else "left")
    rows = model.generate(input_ids=ids, attention_mask=mask.long(), **valid_options(options))
    if task.encoder_decoder:
        return list(rows)
    return [row[ids.shape[1] - len(query) :] for row, query in zip(rows, queries, strict=True)]


def valid_options(options: dict[str, Any]) -> dict[str, Any]:
    """Generation keywords of old programs as today's `generate` takes them.

    Args:
        options: may hold `min_length=-1`, `top_k=0.0`, lengths that are numpy integers.

    Returns:
        The same meaning in valid types.
    """
    new = dict(options)
    if (new.get("min_length") or 0) <= 0:
        new.pop("min_length", None)
    for name in ("top_k", "max_new_tokens", "min_new_tokens", "max_length", "min_length"):
        if new.get(name) is not None:
            new[name] = int(new[name])
    return new


@contextmanager
def generation_mode(model: PreTrainedModelWrapper) -> Iterator[None]:
    """Dropout off, and LoRA added into fp32 weights while the model generates.

    Args:
        model: what generates.

    Yields:
        Nothing; afterwards every weight is the very tensor that it was.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with merged(model.backbone):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
