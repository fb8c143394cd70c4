"""One frozen backbone with an adapter and a value head: policy, reference and critic at once."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lora_detox.choices import Dequantize
from lora_detox.policy.anatomy import state_size
from lora_detox.policy.checksum import checksum
from lora_detox.policy.dequantized import dequantized, dequantizes
from lora_detox.policy.families import Family, Rereading, Writing
from lora_detox.policy.frozen import FrozenPart, adapted_names, head_parameters, merged
from lora_detox.policy.layout import TokenLayout
from lora_detox.policy.logits import raw_logits
from lora_detox.policy.reference import Exchange, Reference, exchanged
from lora_detox.policy.session import EditFactory, SampledWriting
from lora_detox.policy.sharded import ShardedBackbone
from lora_detox.policy.static_decoding import can_decode_statically, write_statically
from lora_detox.policy.token_ids import end_token_ids
from lora_detox.policy.token_stats import ToLogits, exact_kl, sampling_logits, token_logprobs
from lora_detox.policy.value_head import ValueHead
from lora_detox.types import DecodingSession, FrozenStates, ResponseOutputs, Sampling

NUDGE, NUDGE_FROM_ZERO = 2.0**-8, 1e-5
"""How much `nudged` changes the adapter: by the spacing of bf16 numbers, and what is still 0."""


class LoraPolicy:
    """A language model whose adapter learns; implements the `Policy` protocol of `types`.

    With the adapter on it is the policy. Within `reference()` it is the policy as it was at the
    start: the adapter off, or, where training started from an existing adapter, the frozen copy of
    that. The value head reads the policy's states. There is one copy of the backbone.

    Args:
        model: PEFT model with a trainable adapter "default".
        tokenizer: padded on the family's side, with pad and end-of-sequence tokens.
        family: encoder-decoder or decoder-only.
        with_value_head: False for algorithms that estimate no values; these are 0 then.
        eos_token_ids: all ids that end a response; None takes those of tokenizer and backbone.
        reference: what the model holds as the reference; nothing where that is the adapter off.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        family: Family,
        *,
        with_value_head: bool = True,
        eos_token_ids: tuple[int, ...] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.model, self.tokenizer, self.family = model, tokenizer, family
        self.passes = family  # for rows that are read again; `compiled.CompiledPasses` where asked
        self.backbone = model.get_base_model()
        width = state_size(self.backbone.config)
        self.value_head = ValueHead(width, device=self.device) if with_value_head else None
        self.vocabulary: int = self.backbone.get_output_embeddings().weight.shape[0]
        self.frozen_part = FrozenPart(self.backbone)
        self.eos_token_ids = eos_token_ids or end_token_ids(tokenizer, self.backbone.config, {})
        self._reference, self._head = reference or Reference(), head_parameters(self.backbone)
        self.static_cache: bool | None = None  # while decoding; None on GPUs
        self.dequantize = Dequantize.auto  # while decoding, where the backbone is quantized
        self.static_works = can_decode_statically(self.backbone)
        self.rereads = False  # True where the architecture has no cache that can be relied on
        self.edit_logits: EditFactory | None = None  # within `decoding.contexts.edited`
        self.sharded: ShardedBackbone | None = None  # by `shard`
        self.merges = True  # False within `decoding.anti_expert.apart`
        self.model.eval()

    def shard(self, device: torch.device) -> None:
        """Divide the layers of the backbone over the processes of the run, and go to a device.

        Decoding then neither merges the adapter nor keeps a cache of fixed size.

        Args:
            device: of this process; until now the policy is on the CPU.
        """
        self.sharded = ShardedBackbone(self.backbone, device)
        self.model.to(device)
        if self.value_head is not None:
            self.value_head.to(device)
        self.merges = self.static_works = False

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        device: torch.device = self.backbone.device
        return device

    @property
    def pad_token_id(self) -> int:
        """Id that fills padding; may be an end token too, so masks never come from ids."""
        return int(self.tokenizer.pad_token_id)

    @property
    def originals(self) -> Exchange:
        """Base weights that PEFT changed while it loaded the adapter, with what they were."""
        return self._reference.originals

    @property
    def head_learns(self) -> bool:
        """Whether the adapter trains the output matrix, or anything else above the last state."""
        return any(p.requires_grad for p in self._head)

    @property
    def is_reference(self) -> bool:
        """Whether policy and reference are known to be one: plain LoRA whose B is still 0."""
        if self._reference.start or self._reference.originals:
            return False
        learns = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        seconds = [p for n, p in learns if ".lora_B." in n or ".lora_embedding_B." in n]
        firsts = [n for n, _ in learns if ".lora_A." in n or ".lora_embedding_A." in n]
        plain = len(seconds) + len(firsts) == len(learns)
        return plain and not any(bool(p.any()) for p in seconds)

    @property
    def has_value_head(self) -> bool:
        """Whether values are estimated; without a head they are 0."""
        return self.value_head is not None

    def decoding(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        sampling: Sampling,
        room: int | None = None,
    ) -> DecodingSession:
        """Begin to write responses with a key-value cache.

        Args:
            query_ids: padded on the family's side.
            query_mask: True at real tokens.
            sampling: the distribution that tokens are drawn from.
            room: most tokens that will be written, for a cache of fixed size where that is faster.

        Returns:
            A session whose `next_logits` are those after temperature, top-k, top-p and minimum
            length.
        """
        edit = self.edit_logits and self.edit_logits(query_ids, query_mask, room)
        writing = self.write(query_ids, query_mask, room)
        return SampledWriting(self.backbone, writing, sampling, self.eos_token_ids, edit)

    def write(
        self, query_ids: Int[Tensor, "B Q"], query_mask: Bool[Tensor, "B Q"], room: int | None
    ) -> Writing:
        """The key-value cache for a batch; of fixed size where that is faster."""
        static = self.device.type == "cuda" if self.static_cache is None else self.static_cache
        if self.rereads:
            return Rereading(self.family, self.backbone, query_ids, query_mask)
        if room is not None and static and self.static_works:
            return write_statically(self.backbone, query_ids, query_mask, room)
        return self.family.write(self.backbone, query_ids, query_mask)

    def respond(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        sampling: Sampling,
        frozen: FrozenStates | None = None,
        *,
        with_entropy: bool = True,
    ) -> ResponseOutputs:
        """Logprobs, values and entropies of given responses, with gradient where enabled.

        Only states at real response positions go through the output matrix.

        Args:
            query_ids: padded on the family's side.
            query_mask: True at real query tokens.
            response_ids: padded right.
            response_mask: True at real response tokens, end-of-sequence included.
            sampling: the distribution that logprobs and entropies are of.
            frozen: keeper of `frozen_states` for these very rows; the first pass fills it, later
                ones skip what it holds, and do not ask the device for sizes.
            with_entropy: False leaves the entropies 0 and saves their time.

        Returns:
            Tensors [B, R], 0 at padding. The entropy carries no gradient.
        """
        batch = (query_ids, query_mask, response_ids, response_mask)
        layout = _layout(query_mask, response_mask, frozen)
        hidden = self._hidden_at_tokens(*batch, frozen, layout)
        logprobs, entropy = token_logprobs(
            hidden,
            layout.ids(response_ids),
            layout.positions,
            self.to_logits(sampling),
            self.vocabulary,
            with_entropy=with_entropy,
            head_learns=self.head_learns,
        )
        columns = layout.unpack(logprobs, self._values(hidden), entropy)
        return ResponseOutputs(logprobs=columns[0], values=columns[1], entropy=columns[2].detach())

    def _values(self, hidden: Float[Tensor, "N H"]) -> Float[Tensor, "N"]:
        if self.value_head is None:
            return torch.zeros(len(hidden), device=hidden.device)
        values: Tensor = self.value_head(hidden)
        return values

    @torch.no_grad()
    def full_kl(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        sampling: Sampling,
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R"]:
        """Exact KL(policy || reference) at each response position [B, R], nats, 0 at padding."""
        batch = (query_ids, query_mask, response_ids, response_mask)
        layout = _layout(query_mask, response_mask, frozen)
        hidden = self._hidden_at_tokens(*batch, frozen, layout)
        with self.reference():
            ref_hidden = self._hidden_at_tokens(*batch, frozen, layout)
        logits = self.to_logits(sampling)
        ref_logits = self._reference_logits(logits) if self.head_learns else logits
        kl = exact_kl(hidden, ref_hidden, layout.positions, logits, self.vocabulary, ref_logits)
        return layout.unpack(kl)[0]

    def _reference_logits(self, to_logits: ToLogits) -> ToLogits:
        """The same by the reference's output matrix, where the policy's own learns."""

        def reference_logits(hidden: Tensor, positions: Tensor) -> Tensor:
            with self.reference():
                return to_logits(hidden, positions)

        return reference_logits

    def _hidden_at_tokens(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        frozen: FrozenStates | None,
        layout: TokenLayout,
    ) -> Float[Tensor, "N H"]:
        """States behind the real response tokens; columns that are all padding are cut first."""
        queries, tokens = layout.queries, layout.responses
        family = self.family if frozen is None else self.passes
        with self.frozen_part.use(frozen):
            hidden = family.response_hidden(
                self.backbone,
                query_ids[:, queries],
                query_mask[:, queries],
                response_ids[:, tokens],
                response_mask[:, tokens],
                frozen if self.frozen_part.encoder else None,
            )
        return layout.states(hidden)

    def to_logits(self, sampling: Sampling) -> Any:
        """States and positions -> the logits that tokens are drawn from."""

        def to_logits(hidden: Tensor, positions: Tensor) -> Tensor:
            logits = raw_logits(self.backbone, hidden)
            return sampling_logits(logits, positions, sampling, self.eos_token_ids)

        return to_logits

    def frozen_states(self) -> FrozenStates:
        """An empty keeper for what training cannot change of some rows."""
        return FrozenStates()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within this context decoding is faster: the adapter merged, quantized weights whole."""
        whole = dequantizes(self.backbone, self.device, self.dequantize)
        with (
            dequantized(self.backbone) if whole else nullcontext(),
            merged(self.backbone) if self.merges else nullcontext(),
        ):
            yield

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context the model is the reference policy; no gradient is kept."""
        with torch.no_grad():
            if self._reference.start:
                with exchanged(self._reference.start):
                    yield
                return
            with self.model.disable_adapter(), exchanged(self._reference.originals):
                yield

    @contextmanager
    def nudged(self) -> Iterator[bool]:
        """Within this context the adapter is another one by less than an update would change it.

        What a pass says differs by rounding alone then: 16-bit and quantized backbones round
        otherwise wherever the adapter acts. Yields False, and changes nothing, where the backbone
        computes in fp32. Not a bit of the parameters is written.
        """
        quantized = getattr(self.backbone, "is_quantized", False)
        exact = self.backbone.dtype == torch.float32 and not quantized
        generator = torch.Generator().manual_seed(0)
        pairs = () if exact else tuple((p, _nudge(p, generator)) for p in self.adapter_parameters())
        with torch.no_grad(), exchanged(pairs):
            yield not exact

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within this context checkpointing and adapter dropout are on, where they are set."""
        self.model.train()
        for module in self.backbone.modules():
            if type(module).__name__.endswith("Router"):  # Phi-MoE's draws experts in training
                module.eval()
        try:
            yield
        finally:
            self.model.eval()

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Adapter parameters, then the value head's where there is one."""
        yield from self.adapter_parameters()
        yield from self.head_parameters()

    def adapter_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the adapter that learns."""
        return (p for p in self.model.parameters() if p.requires_grad)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the value head; none without one."""
        if self.value_head is not None:
            yield from self.value_head.parameters()

    def base_checksum(self) -> str:
        """BLAKE2b digest of every weight and buffer that is not an adapter's, by name and bytes."""
        weights = self.backbone.state_dict(keep_vars=True)
        adapted = adapted_names(self.backbone, weights)
        names = {n for n, w in weights.items() if isinstance(w, Tensor) and n not in adapted}
        if self.sharded is not None:
            return self.sharded.checksum(self.backbone, names)
        return checksum({name: weights[name] for name in names})

    def count_parameters(self) -> dict[str, int]:
        """`trainable` (adapter and value head) and `total` (with the backbone, as stored)."""
        trainable = sum(p.numel() for p in self.trainable_parameters())
        total = sum(_elements(p) for p in self.model.parameters())
        total += 0 if self.sharded is None else self.sharded.elements
        return {
            "trainable": trainable,
            "total": total + sum(p.numel() for p in self.head_parameters()),
        }

    def save(self, adapter_directory: Path, head_directory: Path) -> None:
        """Write the adapter in PEFT's format, and beside it the value head where there is one."""
        self.save_adapter(adapter_directory)
        self.tokenizer.save_pretrained(adapter_directory)
        if self.value_head is not None:
            self.value_head.save(head_directory)

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter alone in PEFT's format."""
        self.model.save_pretrained(folder, safe_serialization=True, selected_adapters=["default"])
        (folder / "README.md").unlink(missing_ok=True)  # a blank form

    def decode_texts(
        self, response_ids: Int[Tensor, "B R"], response_mask: Bool[Tensor, "B R"]
    ) -> list[str]:
        """Responses as text, special tokens and the final end left out, from the kept ids alone."""
        rows = [ids[mask].tolist() for ids, mask in zip(response_ids, response_mask, strict=True)]
        return self.decode_rows(rows)

    def decode_rows(self, rows: list[list[int]]) -> list[str]:
        """The same from rows of ids without padding."""
        rows = [row[:-1] if row and row[-1] in self.eos_token_ids else row for row in rows]
        texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return texts


def _layout(
    query_mask: Bool[Tensor, "B Q"], response_mask: Bool[Tensor, "B R"], frozen: FrozenStates | None
) -> TokenLayout:
    """Where the tokens are; taken from the keeper of these rows, or left there."""
    if frozen is None:
        return TokenLayout.of(query_mask, response_mask)
    if frozen.layout is None:
        frozen.layout = TokenLayout.of(query_mask, response_mask)
    layout: TokenLayout = frozen.layout
    return layout


def _nudge(parameter: nn.Parameter, generator: torch.Generator) -> Tensor:
    """Each number changed by some 0.4 % and 1e-5, so that 16-bit copies of it are other ones."""
    value = parameter.detach()
    draws = torch.randn(value.shape, generator=generator).to(value.device, value.dtype)
    return value * (1 + NUDGE * draws) + NUDGE_FROM_ZERO * draws


def _elements(parameter: nn.Parameter) -> int:
    """Weights in a parameter; a packed 4-bit tensor holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
