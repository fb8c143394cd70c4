"""States of decoder layers at the tokens of given texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lora_detox.choices import StatePosition
from lora_detox.policy.policy import LoraPolicy
from lora_detox.positions import position_limit
from lora_detox.progress import advance, phase
from lora_detox.special_tokens import tokens_around

_ROWS = 32
_MOST_TOKENS = 128
"""Of a text; what stands behind is not read."""


@torch.no_grad()
def text_states(
    policy: LoraPolicy,
    texts: Sequence[str],
    layers: Sequence[nn.Module],
    position: StatePosition = StatePosition.last,
) -> list[Float[Tensor, "N H"]]:
    """What some layers return at the tokens of each text, before any further norm.

    A decoder-only model reads the text as a query, behind the token that begins a document: the
    first state of many models is hundreds of times as long as the others, whatever the token (Sun
    et al. 2024, "Massive Activations in Large Language Models"), so it is no text's own. An
    encoder-decoder writes the text: its encoder reads an empty text.

    Args:
        policy: whose layers they are.
        texts: N texts.
        layers: of its decoder.
        position: the last token of a text alone, or the mean over all tokens of the text.

    Returns:
        One tensor in fp32 per layer, rows in the order of the texts.
    """
    before, rows = _token_rows(policy, texts)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    states: list[list[Tensor]] = [[] for _ in layers]
    with phase("reading toxic and civil texts", len(rows), "texts"):
        for start in range(0, len(rows), _ROWS):
            batch = [rows[row] for row in order[start : start + _ROWS]]
            with _recorded(layers) as outputs:
                ends = _read(policy, batch)
            own = [max(1, len(ids) - len(before)) for ids in batch]
            read = [1 if position is StatePosition.last else count for count in own]
            spans = [slice(end - n + 1, end + 1) for end, n in zip(ends, read, strict=True)]
            for kept, output in zip(states, outputs, strict=True):
                means = [output[row, span].float().mean(0) for row, span in enumerate(spans)]
                kept.append(torch.stack(means))
            advance(len(batch))
    back = torch.tensor(order).argsort()
    return [torch.cat(kept)[back] for kept in states]


def layer_output(output: Any) -> Tensor:
    """The states among what a layer returns."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _token_rows(policy: LoraPolicy, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokens that stand before every text, and those of each text with them."""
    limit = position_limit(policy.backbone.config) or _MOST_TOKENS
    most = min(_MOST_TOKENS, limit - 2)  # a start token before, a token that is predicted behind
    tokenizer, end = policy.tokenizer, policy.eos_token_ids[0]
    encoded: Any = tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
    before: list[int] = []
    if policy.family.padding_side == "left":  # a decoder of its own begins with its start token
        begins = tokenizer.bos_token_id
        before = tokens_around(tokenizer)[0] or [end if begins is None else begins]
    rows = [[*before, *(ids or [end])][:most] for ids in encoded["input_ids"]]
    return before, rows


def _read(policy: LoraPolicy, rows: list[list[int]]) -> list[int]:
    """Read some texts; the column of the last token of each in the states."""
    family, device = policy.family, policy.device
    next_token = [policy.eos_token_ids[0]]  # predicted by the last state; its value is not read
    if family.padding_side == "left":
        queries, query_mask = _padded(rows, policy, left=True)
        responses, response_mask = _padded([next_token] * len(rows), policy)
        places = [queries.shape[1] - 1] * len(rows)
    else:
        nothing = list(policy.tokenizer("")["input_ids"]) or next_token
        queries, query_mask = _padded([nothing] * len(rows), policy)
        responses, response_mask = _padded([[*ids, *next_token] for ids in rows], policy)
        places = [len(ids) for ids in rows]  # behind the start token
    family.response_hidden(
        policy.backbone,
        queries.to(device),
        query_mask.to(device),
        responses.to(device),
        response_mask.to(device),
    )
    return places


def _padded(
    rows: list[list[int]], policy: LoraPolicy, *, left: bool = False
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), policy.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), True
    return ids, mask


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within this context what each layer returns last is kept, in the order of the layers."""
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)

    def keeper(place: int) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[place] = layer_output(output)

        return keep

    hooks = [layer.register_forward_hook(keeper(place)) for place, layer in enumerate(layers)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
