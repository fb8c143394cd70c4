"""The passes of training by `torch.compile`, over few enough shapes that compiling ends.

What is compiled is the stack of layers (of an encoder-decoder both stacks), with its backward pass:
nearly all operations of an update. Shapes are constants of what is compiled, so inputs are padded
up to sizes of which there are few (`padded_size`). Rows and columns that are added are behind the
real ones, where no real token reads them, and their states are dropped: no number and no gradient
of theirs goes anywhere. The output matrix, token statistics and the loss stay as they are, and so
does decoding.
"""

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from lora_detox.choices import Compile
from lora_detox.errors import SettingsError
from lora_detox.fitting import is_out_of_memory
from lora_detox.machine import resolve_device
from lora_detox.policy.anatomy import decoder_stack, text_config
from lora_detox.policy.families import Family
from lora_detox.policy.frozen import FrozenPart
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.start_check import StartCheck
from lora_detox.types import FrozenStates, Sampling

LOG = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Ids and mask of the queries, then of the responses."""
Shape = tuple[int, int, int]
"""Rows, columns of the queries, columns of the responses."""
LEAST_LENGTH = 16
"""Tokens. Shorter rows are padded to this length."""
MOST_SHAPES = 32
"""Shapes that are compiled; batches of further ones go through the plain modules."""
VARIANTS = 4
"""Programs of one stack for one shape, at most: scoring by the policy, scoring by the reference,
training, and scoring or training on replayed layers beside them."""
_SETS_REQUIRES_GRAD = ("t5", "mt5", "umt5", "longt5")
"""Model types that set `requires_grad` of their position bias within a checkpoint."""
_LIMITS = ("max_position_embeddings", "max_encoder_position_embeddings", "max_target_positions")


def padded_size(size: int, least: int) -> int:
    """The next of least * (1, 1.5, 2, 3, 4, 6, 8, ...), so that at most half is added.

    Args:
        size: rows or columns, >= 1.
        least: the smallest result.

    Returns:
        A number that is not smaller.
    """
    step = least
    while step < size:
        if size <= step + step // 2:
            return step + step // 2
        step *= 2
    return step


class CompiledPasses:
    """A family whose `response_hidden` is compiled; in everything else it is that family.

    Args:
        family: of the model.
        model: the backbone with adapter layers in place.
        frozen_part: the passes that fill it read layers by a hook, which compiled code would not
            call; they go through the plain modules.
        mode: `reduce_overhead` replays a pass as CUDA graphs.
        backend: of torch.compile.
    """

    def __init__(
        self,
        family: Family,
        model: PreTrainedModel,
        frozen_part: FrozenPart,
        mode: Compile,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.family, self.frozen_part = family, frozen_part
        self.padding_side = family.padding_side
        self.add_special_tokens, self.write = family.add_special_tokens, family.write
        self.graphs = mode is Compile.reduce_overhead
        graph_mode = "reduce-overhead" if self.graphs and backend == "inductor" else None
        if hasattr(model, "_require_grads_hook"):
            # Of gradient checkpointing: does not compile, and only re-entrant checkpoints need it.
            model.disable_input_require_grads()
        self.stacks = _stacks(model)
        self.forwards: list[Callable[..., Any]] = [
            torch.compile(
                stack.forward, fullgraph=True, dynamic=False, backend=backend, mode=graph_mode
            )
            for stack in self.stacks
        ]
        self.shapes: set[tuple[int, ...]] = set()
        self.longest = _longest(model.config)
        if self.graphs:
            # The gradients of a replayed graph are overwritten by the next replay.
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(torch.clone)

    def response_hidden(
        self,
        model: PreTrainedModel,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R H"]:
        """As of the family; the states are to be copied before the next pass."""
        (size, queries), responses = query_ids.shape, response_ids.shape[1]
        shape = self._padded_shape(size, queries, responses)
        batch = (query_ids, query_mask, response_ids, response_mask)
        if not self._compiles(shape):
            return self.family.response_hidden(model, *batch, frozen)
        begins = frozen is not None and frozen.encoded is None
        with nullcontext() if self.frozen_part.records else self._compiled():
            hidden = self.family.response_hidden(model, *_padded(batch, shape), frozen)
        if self.graphs and begins and frozen is not None and frozen.encoded is not None:
            frozen.encoded = frozen.encoded.clone()
        return hidden[:size, :responses]

    def _padded_shape(self, rows: int, queries: int, responses: int) -> Shape:
        """Rows, query columns and response columns that a batch of given ones is padded to."""
        rows = padded_size(rows, 1)
        if self.padding_side == "left":  # one stack reads both, without the last token
            return rows, queries, self._length(queries + responses - 1) - queries + 1
        return rows, self._length(queries), self._length(responses)

    def _length(self, length: int) -> int:
        """Padded, but not beyond the positions that a model has."""
        padded = padded_size(length, LEAST_LENGTH)
        return self.longest if length <= self.longest < padded else padded

    def _compiles(self, shape: Shape) -> bool:
        """Whether this shape is among those that are compiled, which it joins if there is room."""
        read = (shape[0], sum(shape[1:]) - 1) if self.padding_side == "left" else shape
        if read in self.shapes:
            return True
        if len(self.shapes) == MOST_SHAPES:
            return False
        self.shapes.add(read)
        if len(self.shapes) == MOST_SHAPES:
            LOG.warning(
                "policy.compile: %d shapes of batches are compiled; further ones are not",
                MOST_SHAPES,
            )
        return True

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Within this context the stacks are compiled ones."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        most = len(self.stacks) * VARIANTS * MOST_SHAPES
        limits: Any = importlib.import_module("torch._dynamo.config")  # 8 by themselves
        for stack, forward in zip(self.stacks, self.forwards, strict=True):
            stack.forward = forward
        try:
            with limits.patch(cache_size_limit=most, accumulated_cache_size_limit=8 * most):
                yield
        finally:
            for stack in self.stacks:
                del stack.forward


def check_compiles(
    mode: Compile, device: str, config: PretrainedConfig, *, checkpointing: bool
) -> None:
    """What compiling wants of machine and model is there; before weights load.

    Args:
        mode: as the settings have it.
        device: the same.
        config: of the model.
        checkpointing: whether activations are computed again in the backward pass.

    Raises:
        SettingsError: CUDA graphs without a GPU, no C++ compiler for a CPU, no Triton for a GPU,
            gradient checkpointing of a T5.
    """
    if mode is Compile.none:
        return
    asked, where = f"policy.compile={mode.value}", resolve_device(device).type
    if checkpointing and config.model_type in _SETS_REQUIRES_GRAD:
        raise SettingsError(
            f"{asked}: {config.model_type} with policy.gradient_checkpointing=true does not "
            "compile; want one of both, policy.compile=none or policy.gradient_checkpointing=false"
        )
    if where == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise SettingsError(
                f"{asked} on a GPU wants Triton, which is not installed (it comes with PyTorch's "
                "CUDA builds for Linux); want policy.compile=none, or pip install triton"
            )
        return
    if mode is Compile.reduce_overhead:
        raise SettingsError(
            f"{asked} replays CUDA graphs, and device={device} is a {where} here; want "
            "policy.compile=default or none"
        )
    builder = importlib.import_module("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except RuntimeError as error:
        raise SettingsError(
            f"{asked} on a CPU wants a C++ compiler, and none runs here (of CXX, else g++, clang++ "
            "on macOS, cl on Windows); install one, or want policy.compile=none"
        ) from error


def compile_passes(
    policy: LoraPolicy, mode: Compile, backend: str | Callable[..., Any] = "inductor"
) -> None:
    """Compile a policy's passes from now on, after one was compared with the plain one.

    Args:
        policy: just loaded.
        mode: not `none`.
        backend: of torch.compile.

    Raises:
        SettingsError: the model does not compile here, or computes something else then.
    """
    asked, want = f"policy.compile={mode.value}", "want policy.compile=none"
    check = StartCheck(policy.backbone, policy.family, policy.tokenizer, "the policy")
    plain = _pass(policy, check)
    policy.passes = CompiledPasses(
        policy.family, policy.backbone, policy.frozen_part, mode, backend
    )
    try:
        compiled = _pass(policy, check)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"{asked}: {check.what} does not compile here ({type(error).__name__}: {reason}); "
            f"{want}"
        ) from error
    distances = [
        float((compiled[0] - plain[0]).abs().mean()),
        float((compiled[1] - plain[1]).norm() / plain[1].norm().clamp(min=1e-12)),
    ]
    if not all(distance <= check.tolerance for distance in distances):
        raise SettingsError(
            f"{asked}: {check.what} computes something else when it is compiled: logprobs differ "
            f"by {distances[0]:.3g} nats, gradients by {distances[1]:.3g} of their norm, and at "
            f"most {check.tolerance:g} is rounding; {want}"
        )


def _pass(policy: LoraPolicy, check: StartCheck) -> tuple[Tensor, Tensor]:
    """Logprobs of the rows that each start compares, and the adapter's gradient of their sum."""
    rows, frozen = check.rows, policy.frozen_states()
    batch = (rows.query_ids, rows.query_mask, rows.response_ids, rows.response_mask, Sampling())
    with torch.no_grad():
        policy.respond(*batch, frozen)
    learned = list(policy.adapter_parameters())
    with policy.training(), torch.enable_grad():
        for module in policy.model.modules():
            if isinstance(module, nn.Dropout):  # compiled ones draw other numbers
                module.eval()
        logprobs = policy.respond(*batch, frozen).logprobs
        gradients = torch.autograd.grad(logprobs.sum(), learned, allow_unused=True)
    parts = [one.detach().float().flatten() for one in gradients if one is not None]
    return logprobs.detach(), torch.cat(parts)


def _padded(batch: Batch, shape: Shape) -> Batch:
    """Columns that no token reads, and rows of tokens that are real to the attention alone."""
    rows, queries, responses = shape

    def padded(one: Tensor, columns: int) -> Tensor:
        wide = functional.pad(one, (0, columns - one.shape[1]))
        return functional.pad(wide, (0, 0, 0, rows - len(one)), value=1)

    query_ids, query_mask, response_ids, response_mask = batch
    return (
        padded(query_ids, queries),
        padded(query_mask, queries),
        padded(response_ids, responses),
        padded(response_mask, responses),
    )


def _stacks(model: PreTrainedModel) -> list[Any]:
    """What reads token ids: the decoder, and the encoder where there is one."""
    encoder = [model.get_encoder()] if model.config.is_encoder_decoder else []
    return [*encoder, decoder_stack(model)]


def _longest(config: PretrainedConfig) -> int:
    """Most positions of a row; a large number where nothing bounds them."""
    owners = (config, text_config(config))
    limits = [getattr(owner, name, None) for owner in owners for name in _LIMITS]
    return min((one for one in limits if isinstance(one, int) and one > 0), default=2**31)
