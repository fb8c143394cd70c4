"""States of the last layer -> logits, as the model's own forward defines them.

Between the last layer and the logits architectures scale (Granite, Cohere, T5), cap (Gemma 2), add
a bias (BART) or transform (BERT). The definition is the forward method of the model: it is called
with a stack that answers with given states. Where the output matrix with the usual extras gives the
same numbers, these are computed directly, which saves the call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PreTrainedModel

from lora_detox.policy.anatomy import decoder_stack, head_owner

_COMPARED_STATES = 4
_LOUDER = 8.0
"""A cap or another bend of the logits shows on states that are longer than usual."""

_IS_PLAIN: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def language_logits(model: PreTrainedModel, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
    """Logits in fp32 from states, exactly as the model's own forward computes them.

    Args:
        model: a language model of either family, with or without an adapter in its layers.
        hidden: states of the last layer, as `decoder_stack(model)` returns them.

    Returns:
        Logits before any temperature.
    """
    return raw_logits(model, hidden).float()


def raw_logits(model: PreTrainedModel, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
    """The same numbers in the dtype that the model's forward gives them.

    Args:
        model: as for `language_logits`.
        hidden: the same.

    Returns:
        Logits before any temperature.
    """
    plain = _IS_PLAIN.get(model)
    if plain is None:
        plain = _is_plain(model, hidden)
    return _plain_logits(model, hidden) if plain else own_logits(model, hidden)


def own_logits(model: PreTrainedModel, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
    """Logits by the forward method of the model, whose stack answers with given states."""
    owner = head_owner(model)
    token_ids = torch.zeros((1, len(hidden)), dtype=torch.long, device=hidden.device)
    inputs: dict[str, Any] = {"input_ids": token_ids}
    if owner.config.is_encoder_decoder:
        encoded = _StackOutput((hidden[None, :1],))
        inputs = {"decoder_input_ids": token_ids, "encoder_outputs": encoded}
    with _answering(_stacks(model), hidden[None]) as asked:
        logits: Tensor = owner(**inputs, use_cache=False).logits
    if not asked:
        raise ValueError(f"{type(owner).__name__} does not read the states of its decoder stack")
    return logits[0]


def _stacks(model: PreTrainedModel) -> list[Any]:
    """The stack and a wrapper around it: BART and OPT call one of them, by family."""
    owner, stack = head_owner(model), decoder_stack(model)
    inner = owner.get_decoder()
    same = inner is stack or inner is owner or not isinstance(inner, PreTrainedModel)
    return [stack] if same or inner is None else [stack, inner]


def _plain_logits(model: PreTrainedModel, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N V"]:
    config = model.config
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        hidden = hidden * (config.d_model**-0.5)
    head = model.get_output_embeddings()
    logits: Tensor = head(
        hidden.to(head.weight.dtype) if head.weight.is_floating_point() else hidden
    )
    bias = getattr(model, "final_logits_bias", None)  # BART
    if bias is not None:
        logits = logits + bias
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def _is_plain(model: PreTrainedModel, hidden: Float[Tensor, "N H"]) -> bool:
    """Compare both ways on a few of the states once; content-free ones decide nothing for later."""
    states = hidden.detach()[:_COMPARED_STATES]
    if isinstance(states, FakeTensor) or states.is_meta or len(states) == 0:
        return False
    states = torch.cat([states, _LOUDER * states])
    own = own_logits(model, states).float()
    try:
        direct = _plain_logits(model, states).float()
    except (RuntimeError, AttributeError, TypeError):  # a head of another kind or width
        direct = torch.full_like(own, torch.nan)
    precise = states.dtype == torch.float32
    tolerance = 1e-5 if precise else 1e-2
    same = own.shape == direct.shape and torch.allclose(own, direct, rtol=tolerance, atol=tolerance)
    _IS_PLAIN[model] = same
    return same


@contextmanager
def _answering(stacks: list[Any], states: Float[Tensor, "1 N H"]) -> Iterator[list[str]]:
    """Within this context calling a stack returns these states; yields who was called."""
    asked: list[str] = []

    def answer(*_inputs: Any, **_keywords: Any) -> _StackOutput:
        asked.append("stack")
        return _StackOutput((states,))

    replaced = [vars(stack).get("forward") for stack in stacks]
    for stack in stacks:
        stack.forward = answer
    try:
        yield asked
    finally:
        for stack, forward in zip(stacks, replaced, strict=True):
            del stack.forward
            if forward is not None:
                stack.forward = forward


class _StackOutput(tuple[Tensor, ...]):
    """States as the output of a stack: of everything else that may be asked there is None.

    As outputs of Transformers it is a tuple and a mapping: models index it, or unpack it by `**`.
    """

    __slots__ = ()

    def keys(self) -> tuple[str, ...]:
        return ("last_hidden_state",)

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self.keys() else default

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None
