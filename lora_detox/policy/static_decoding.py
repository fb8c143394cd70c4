"""Decoding with a key-value cache of fixed size, whose step a GPU replays as a CUDA graph.

Token by token a small model leaves a GPU idle between kernel launches. With buffers that never move
one step is captured once per batch and replayed for each token. What is computed is what
`families` computes; only masked columns are added. On other devices the same step runs eagerly,
which is how it is tested without a GPU.
"""

import inspect
import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from lora_detox.machine import CACHE_COLUMNS
from lora_detox.policy.anatomy import cache_keyword, decoder_stack, text_config
from lora_detox.policy.families import Writing, encode, positions_from_mask

LOG = logging.getLogger(__name__)


def can_decode_statically(model: PreTrainedModel) -> bool:
    """Whether a model's step has fixed shapes and takes prepared masks and positions.

    Not so where attention depends on the cache's length (GPT-Neo's windows) or on the padding mask
    itself (BLOOM), where layers have a sliding window or a state in place of keys and values, nor
    where weights are quantized: int8 looks at the numbers it multiplies.
    """
    if not getattr(model, "_can_compile_fullgraph", False) or getattr(model, "is_quantized", False):
        return False
    layers = StaticCache(config=text_config(model.config), max_cache_len=CACHE_COLUMNS).layers
    if any(type(layer) is not StaticLayer for layer in layers):
        return False
    if model.config.is_encoder_decoder:
        return str(model.config.model_type) in ("t5", "mt5", "umt5")
    return "position_ids" in inspect.signature(decoder_stack(model).forward).parameters


def write_statically(
    model: PreTrainedModel,
    query_ids: Int[Tensor, "B Q"],
    query_mask: Bool[Tensor, "B Q"],
    room: int,
) -> Writing:
    """Begin to write at most `room` tokens to each query, with a cache of fixed size."""
    kind = _StaticDecoder if model.config.is_encoder_decoder else _StaticStack
    return kind(model, query_ids, query_mask, room)


class _StaticWriting(ABC):
    """What both families share: fixed buffers and the graph of a step.

    Rows that are dropped stay in the batch and are no longer looked at.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int) -> None:
        self.device, self.dtype = model.device, model.dtype
        self.cache_keyword = cache_keyword(decoder_stack(model))
        self.token_ids = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
        self.kept = torch.arange(rows, device=self.device)
        self.columns = torch.arange(columns, device=self.device)
        self.written = torch.zeros(1, dtype=torch.long, device=self.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.state: Tensor | None = None
        self.captures = self.device.type == "cuda"

    @abstractmethod
    def _begin(self) -> Float[Tensor, "B H"]:
        """Read the queries; the state that predicts the first token."""

    @abstractmethod
    def _forward(self) -> Float[Tensor, "B H"]:
        """Append `token_ids`; nothing here may look at numbers on the device."""

    @abstractmethod
    def _static_cache(self) -> StaticCache:
        """The part of the cache that grows."""

    def step(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B H"]:
        if token_ids is None:
            return self._begin()
        self.token_ids[self.kept] = token_ids[:, None]
        if self.captures and self.graph is None:
            self._capture()
        if self.graph is None or self.state is None:
            return self._forward()[self.kept]
        self.graph.replay()
        return self.state[self.kept]

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        self.kept = self.kept[rows]

    def _capture(self) -> None:
        """Record a step, after one that warms up and is taken back; without luck go on eagerly."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._forward()
        current.wait_stream(stream)
        self.written.sub_(1)
        for layer in self._static_cache().layers:
            layer.cumulative_length.sub_(1)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                state = self._forward()
        except RuntimeError as error:
            LOG.warning("decoding goes on without a CUDA graph: %s", str(error).splitlines()[0])
            self.captures = False
            torch.cuda.synchronize()
            return
        self.graph, self.state = graph, state

    def _additive(self, allowed: Bool[Tensor, "B N T"]) -> Float[Tensor, "B 1 N T"]:
        """0 where a column may be read, the lowest number elsewhere."""
        lowest = torch.finfo(self.dtype).min
        return torch.zeros(allowed.shape, dtype=self.dtype, device=self.device).masked_fill(
            ~allowed, lowest
        )[:, None]


class _StaticStack(_StaticWriting):
    """Decoder-only: the query fills the first columns, padded left."""

    def __init__(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        room: int,
    ) -> None:
        size = _aligned(query_ids.shape[1] + room)
        super().__init__(model, len(query_ids), size)
        self.stack, self.query_ids, self.query_mask = decoder_stack(model), query_ids, query_mask
        self.cache: Any = StaticCache(config=text_config(model.config), max_cache_len=size)
        self.readable = torch.ones(len(query_ids), size, dtype=torch.bool, device=self.device)
        self.readable[:, : query_mask.shape[1]] = query_mask
        self.lengths = query_mask.sum(dim=1, keepdim=True)

    def _static_cache(self) -> StaticCache:
        cache: StaticCache = self.cache
        return cache

    def _begin(self) -> Float[Tensor, "B H"]:
        rows = torch.arange(self.query_ids.shape[1], device=self.device)
        allowed = (self.columns <= rows[:, None]) & self.readable[:, None]
        return self._read(self.query_ids, allowed, positions_from_mask(self.query_mask))

    def _forward(self) -> Float[Tensor, "B H"]:
        here = self.written + self.query_ids.shape[1]
        allowed = ((self.columns <= here) & self.readable)[:, None]
        state = self._read(self.token_ids, allowed, self.lengths + self.written)
        self.written.add_(1)
        return state

    def _read(self, ids: Tensor, allowed: Tensor, positions: Tensor) -> Float[Tensor, "B H"]:
        output = self.stack(
            input_ids=ids,
            attention_mask=self._additive(allowed),
            position_ids=positions,
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        last: Tensor = output.last_hidden_state[:, -1]
        return last


class _StaticDecoder(_StaticWriting):
    """Encoder-decoder: the encoder's keys and values are made by the first step and stay."""

    def __init__(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        room: int,
    ) -> None:
        size = _aligned(1 + room)
        super().__init__(model, len(query_ids), size)
        self.decoder = decoder_stack(model)
        self.encoded = encode(model, query_ids, query_mask)
        self.query_allowed = self._additive(query_mask[:, None])
        grows = StaticCache(config=self.decoder.config, max_cache_len=size)
        self.cache: Any = EncoderDecoderCache(grows, DynamicCache())
        self.token_ids.fill_(model.config.decoder_start_token_id)

    def _static_cache(self) -> StaticCache:
        cache: StaticCache = self.cache.self_attention_cache
        return cache

    def _begin(self) -> Float[Tensor, "B H"]:
        return self._forward()

    def _forward(self) -> Float[Tensor, "B H"]:
        allowed = (self.columns <= self.written).expand(len(self.token_ids), 1, -1)
        output = self.decoder(
            input_ids=self.token_ids,
            attention_mask=self._additive(allowed),
            encoder_hidden_states=self.encoded,
            encoder_attention_mask=self.query_allowed,
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        self.written.add_(1)
        last: Tensor = output.last_hidden_state[:, -1]
        return last


def _aligned(columns: int) -> int:
    return -(-columns // CACHE_COLUMNS) * CACHE_COLUMNS
