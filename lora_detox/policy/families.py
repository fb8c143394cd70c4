"""The only place where encoder-decoder and decoder-only models differ.

Alignment, for both: `hidden[:, t]` is the state from which `response_ids[:, t]` was sampled, so
every response token, the first and end-of-sequence included, is an action. The decoder start token
of an encoder-decoder is state, not action.
"""

import inspect
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PretrainedConfig, PreTrainedModel

from lora_detox.policy.anatomy import cache_keyword, decoder_stack, text_config
from lora_detox.types import FrozenStates


@runtime_checkable
class Writing(Protocol):
    """The key-value cache of a batch that is being written."""

    def step(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B H"]:
        """Append one token to each row (None at the start); the state that predicts the next."""

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""


@runtime_checkable
class Family(Protocol):
    """What differs between the model families."""

    padding_side: Literal["left", "right"]
    add_special_tokens: bool

    def response_hidden(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R H"]:
        """States from which each response token is predicted; `frozen` keeps the encoder's."""

    def write(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> Writing:
        """Read the queries and begin to write."""


class EncoderDecoder:
    """T5, FLAN-T5, BART: the encoder reads the query, the decoder writes. Padded right."""

    padding_side: Literal["left", "right"] = "right"
    add_special_tokens = True

    def response_hidden(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R H"]:
        """Decoder states for start token + response[:-1]; the encoder runs once."""
        encoded = None if frozen is None else frozen.encoded
        if encoded is None:
            encoded = encode(model, query_ids, query_mask)
        if frozen is not None:
            frozen.encoded = encoded.detach()
        start = response_ids.new_full((len(response_ids), 1), model.config.decoder_start_token_id)
        hidden: Tensor = decoder_stack(model)(
            input_ids=torch.cat([start, response_ids[:, :-1]], dim=1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=query_mask.long(),
            use_cache=False,
        )[0]
        return hidden

    def write(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> Writing:
        """Encode once; the decoder then reads one token a step."""
        return _DecoderWriting(model, query_ids, query_mask)


class _DecoderWriting:
    def __init__(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> None:
        self.decoder = decoder_stack(model)
        self.cache_keyword = cache_keyword(self.decoder)
        self.start_id = model.config.decoder_start_token_id
        self.mask = query_mask.long()
        self.encoded = encode(model, query_ids, query_mask)
        self.cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def step(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B H"]:
        if token_ids is None:
            token_ids = self.mask.new_full((len(self.mask),), self.start_id)
        output = self.decoder(
            input_ids=token_ids[:, None],
            encoder_hidden_states=self.encoded,
            encoder_attention_mask=self.mask,
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        last: Tensor = output.last_hidden_state[:, -1]
        return last

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        self.mask, self.encoded = self.mask[rows], self.encoded[rows]
        self.cache.batch_select_indices(rows)


def encode(
    model: PreTrainedModel, query_ids: Int[Tensor, "B Q"], query_mask: Bool[Tensor, "B Q"]
) -> Float[Tensor, "B Q H"]:
    """What the decoder reads of the queries, projected where its width is another one."""
    encoded: Tensor = model.get_encoder()(input_ids=query_ids, attention_mask=query_mask.long())[0]
    projection = getattr(model, "enc_to_dec_proj", None)
    return encoded if projection is None else projection(encoded)


class DecoderOnly:
    """GPT-J, GPT-Neo, GPT-2, OPT, BLOOM, Llama: one stack reads and writes. Padded left."""

    padding_side: Literal["left", "right"] = "left"
    add_special_tokens = False

    def response_hidden(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R H"]:
        """States of the last query token and of response[:-1]; there is no encoder to keep."""
        mask = torch.cat([query_mask, response_mask], dim=1)[:, :-1]
        ids = torch.cat([query_ids, response_ids], dim=1)[:, :-1]
        stack = decoder_stack(model)
        hidden: Tensor = stack(
            input_ids=ids,
            attention_mask=mask.long(),
            use_cache=False,
            **_positions(stack, positions_from_mask(mask)),
        )[0]
        return hidden[:, query_ids.shape[1] - 1 :]

    def write(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> Writing:
        """Read the whole query in the first step, then one token a step."""
        return _StackWriting(model, query_ids, query_mask)


class _StackWriting:
    def __init__(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> None:
        self.stack, self.query_ids, self.mask = decoder_stack(model), query_ids, query_mask.long()
        self.cache: Any = DynamicCache(config=text_config(model.config))
        self.cache_keyword = cache_keyword(self.stack)
        # Mamba keeps a state in place of keys and values; nothing in it is padding any more.
        self.has_state = self.cache_keyword == "cache_params" or holds_states_alone(self.cache)

    def step(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B H"]:
        if token_ids is None:
            ids, positions = self.query_ids, positions_from_mask(self.mask.bool())
        else:
            ids = token_ids[:, None]
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
            positions = self.mask.sum(dim=1, keepdim=True) - 1
        output = self.stack(
            input_ids=ids,
            attention_mask=None if self.has_state and token_ids is not None else self.mask,
            use_cache=True,
            **{self.cache_keyword: self.cache},
            **_positions(self.stack, positions),
        )
        last: Tensor = output.last_hidden_state[:, -1]
        return last

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        self.query_ids, self.mask = self.query_ids[rows], self.mask[rows]
        for layer in self.cache.layers:
            if hasattr(layer, "conv_states"):  # layers with a state leave it out of the selection
                layer.reorder_cache(rows)
            else:
                layer.batch_select_indices(rows)


def holds_states_alone(cache: DynamicCache) -> bool:
    """Whether every layer of a cache has a state, and none has keys and values."""
    layers = cache.layers
    return bool(layers) and all(
        hasattr(layer, "conv_states") and not hasattr(layer, "keys") for layer in layers
    )


def positions_from_mask(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Position of each token among the real ones of its row; 0 at left padding.

    GPT-2 and GPT-Neo count positions from the left edge unless they are given, which shifts every
    left-padded row (transformers#18388).
    """
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _positions(stack: Any, positions: Int[Tensor, "B T"]) -> dict[str, Tensor]:
    """The `position_ids` keyword where the stack takes one (BLOOM derives them from the mask)."""
    if "position_ids" not in inspect.signature(stack.forward).parameters:
        return {}
    embedding = getattr(getattr(stack, "embeddings", None), "position_embeddings", None)
    padding = getattr(embedding, "padding_idx", None)  # RoBERTa counts from behind it
    return {"position_ids": positions if padding is None else positions + padding + 1}


class Rereading:
    """Writing without a cache: each step reads the query and all that is written once more.

    For architectures whose cache cannot hold padded rows; quadratic in the length.

    Args:
        family: of the model.
        model: what writes.
        query_ids: padded on the family's side.
        query_mask: True at real tokens.
    """

    def __init__(
        self,
        family: Family,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
    ) -> None:
        self.family, self.model = family, model
        self.query_ids, self.query_mask = query_ids, query_mask
        self.written = query_ids[:, :0]
        self.frozen = FrozenStates()

    def step(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B H"]:
        """Append one token to each row (None at the start); the state that predicts the next."""
        if token_ids is not None:
            self.written = torch.cat([self.written, token_ids[:, None]], dim=1)
        next_ids = self.query_ids.new_zeros(len(self.written), 1)  # their value is not read
        ids = torch.cat([self.written, next_ids], dim=1)
        hidden = self.family.response_hidden(
            self.model,
            self.query_ids,
            self.query_mask,
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            self.frozen,
        )
        return hidden[:, -1]

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""
        self.query_ids, self.query_mask = self.query_ids[rows], self.query_mask[rows]
        self.written = self.written[rows]
        if self.frozen.encoded is not None:
            self.frozen.encoded = self.frozen.encoded[rows]


def family_of(config: PretrainedConfig) -> Family:
    """The family of a model, from its configuration alone."""
    return EncoderDecoder() if config.is_encoder_decoder else DecoderOnly()
