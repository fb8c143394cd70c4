"""Is the policy that was loaded the model that the user meant? A comparison before anything trains.

What the toolkit computes goes around the model's own forward: through its stack alone, in padded
batches, token by token with a cache, with layers replaced by leaner ones and lower layers replayed.
Each of these is compared with the plain forward of the model, on a few rows of random tokens. What
is compared differs by rounding at most; where an architecture means something else, this shows it.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_detox.errors import SettingsError
from lora_detox.fitting import is_out_of_memory
from lora_detox.policy.families import Family
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.weight_check import first_wild_module
from lora_detox.types import Sampling

LOG = logging.getLogger(__name__)
_FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError)
"""What a model raises that is called as it cannot be called."""

_QUERY_LENGTHS = (12, 5, 8)
_RESPONSE_LENGTHS = (5, 3, 4)
_FIRST_IDS = 3
"""Ids from here on are compared: below are, in most vocabularies, the special ones."""
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """Three rows of random tokens.

    Attributes:
        query_ids: padded on the family's side [B, Q].
        query_mask: True at real tokens [B, Q].
        response_ids: padded right [B, R].
        response_mask: True at real tokens [B, R].
    """

    query_ids: Int[Tensor, "B Q"]
    query_mask: Bool[Tensor, "B Q"]
    response_ids: Int[Tensor, "B R"]
    response_mask: Bool[Tensor, "B R"]

    @classmethod
    def draw(cls, vocabulary: int, pad_token_id: int, family: Family) -> "CheckedRows":
        """Rows of different lengths, the same for the same vocabulary, on the CPU."""
        generator = torch.Generator().manual_seed(_SEED)
        queries, responses = torch.tensor(_QUERY_LENGTHS), torch.tensor(_RESPONSE_LENGTHS)
        columns = torch.arange(max(_QUERY_LENGTHS))
        if family.padding_side == "left":
            query_mask = columns >= (len(columns) - queries)[:, None]
        else:
            query_mask = columns < queries[:, None]
        response_mask = torch.arange(max(_RESPONSE_LENGTHS)) < responses[:, None]
        first = min(_FIRST_IDS, vocabulary - 1)
        query_ids, response_ids = (
            torch.randint(first, vocabulary, mask.shape, generator=generator)
            for mask in (query_mask, response_mask)
        )
        for ids in (query_ids, response_ids):  # models that look for padding by its id find none
            ids[ids == pad_token_id] = vocabulary - 1 if pad_token_id != vocabulary - 1 else first
        query_ids[~query_mask], response_ids[~response_mask] = pad_token_id, pad_token_id
        return cls(
            query_ids=query_ids,
            query_mask=query_mask,
            response_ids=response_ids,
            response_mask=response_mask,
        )

    def to(self, device: torch.device) -> "CheckedRows":
        """The same rows on a device."""
        return CheckedRows(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def row(self, index: int) -> "CheckedRows":
        """One row alone, without padding."""
        queries, responses = self.query_mask[index], self.response_mask[index]
        return CheckedRows(
            query_ids=self.query_ids[index, queries][None],
            query_mask=queries[queries][None],
            response_ids=self.response_ids[index, responses][None],
            response_mask=responses[responses][None],
        )


@torch.no_grad()
def own_logprobs(model: PreTrainedModel, rows: CheckedRows) -> Float[Tensor, "B R"]:
    """Log-probabilities of the response tokens by the model's own forward, row by row.

    Args:
        model: backbone with or without an adapter in its layers.
        rows: what is read.

    Returns:
        Nats, 0 at padding.
    """
    logprobs = torch.zeros(rows.response_ids.shape, device=rows.response_ids.device)
    for index in range(len(logprobs)):
        one = rows.row(index)
        if model.config.is_encoder_decoder:
            start = one.response_ids.new_full((1, 1), model.config.decoder_start_token_id)
            written = torch.cat([start, one.response_ids[:, :-1]], dim=1)
            logits = model(input_ids=one.query_ids, decoder_input_ids=written).logits
        else:
            text = torch.cat([one.query_ids, one.response_ids], dim=1)
            logits = model(input_ids=text).logits[:, one.query_ids.shape[1] - 1 : -1]
        every = logits.float().log_softmax(dim=-1)
        drawn = every.gather(-1, one.response_ids[:, :, None])[0, :, 0]
        logprobs[index, : len(drawn)] = drawn
    return logprobs


class StartCheck:
    """Compares a policy with what the plain model said of the same tokens.

    Args:
        backbone: as it was loaded.
        family: of the model.
        tokenizer: of the model, with a padding token.
        name: path of the model, for messages.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        family: Family,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
    ) -> None:
        vocabulary = int(backbone.get_input_embeddings().weight.shape[0])
        rows = CheckedRows.draw(vocabulary, int(tokenizer.pad_token_id), family)
        self.rows = rows.to(backbone.device)
        self.what = f"{name} ({backbone.config.model_type})"
        self.tolerance = _tolerance(backbone)

    def plain(self, model: PreTrainedModel) -> Float[Tensor, "B R"]:
        """What the model's own forward says now.

        Args:
            model: the backbone, with or without adapter layers.

        Returns:
            Nats, 0 at padding.

        Raises:
            SettingsError: its forward needs more than token ids, or gives what is no number.
        """
        model.eval()  # layers of a new adapter come in training mode
        try:
            logprobs = own_logprobs(model, self.rows)
        except _FAULTS as error:
            if is_out_of_memory(error):
                raise
            raise self._failed("its own forward on token ids alone", error) from error
        if not bool(logprobs.isfinite().all()):
            raise self._not_finite(model)
        return logprobs

    def policy(self, policy: LoraPolicy, start: Float[Tensor, "B R"]) -> None:
        """The policy scores and writes like the model that training starts from.

        Where it does so without a key-value cache only, or without replaying frozen layers, that is
        what it does from now on.

        Args:
            policy: just loaded.
            start: what the model's own forward said, with the adapter that training starts from.

        Raises:
            SettingsError: it does not, so this architecture cannot be trained rightly.
        """
        padded = self._scored(policy, [self.rows])
        if self._distance(padded, start) > self.tolerance:
            alone = self._scored(policy, [self.rows.row(i) for i in range(len(start))])
            self._compare("log-probabilities of the toolkit", alone, start)
            side = policy.family.padding_side
            self._compare(f"log-probabilities in a batch padded on the {side}", padded, start)
        if policy.frozen_part.exists and self._distance(self._replayed(policy), start) > (
            self.tolerance
        ):
            LOG.warning("%s: frozen layers are computed anew in each pass", self.what)
            policy.frozen_part.disable()
        if not self._writes(policy, start):
            self._write_otherwise(policy, start)

    def _write_otherwise(self, policy: LoraPolicy, start: Float[Tensor, "B R"]) -> None:
        """Go on with a growing cache, else with none at all, whatever writes rightly."""
        if policy.static_works:
            policy.static_works = False
            if self._writes(policy, start):
                return
        policy.rereads = True
        if not self._writes(policy, start):
            raise SettingsError(
                f"policy.path: {self.what} gives a token another probability when the tokens "
                "behind it are known, so it is no causal language model and cannot write; "
                "choose a decoder-only or an encoder-decoder model"
            )
        LOG.warning(
            "%s has no key-value cache that holds padded rows: each token reads the whole "
            "text again, which is slow",
            self.what,
        )

    def reference(self, policy: LoraPolicy, expected: Float[Tensor, "B R"]) -> None:
        """Within `reference()` the policy is what the KL penalty and the perplexity refer to.

        Args:
            policy: just loaded.
            expected: nats by the model's own forward, of the start or of the bare backbone.

        Raises:
            SettingsError: it is something else.
        """
        with policy.reference():
            scored = self._scored(policy, [self.rows])
        self._compare("log-probabilities of the reference policy", scored, expected)

    def learns(self, policy: LoraPolicy, path: str) -> None:
        """A gradient reaches whatever counts as trainable.

        Args:
            policy: with the stored adapter.
            path: of the adapter, as the settings name it.

        Raises:
            SettingsError: a parameter would never learn.
        """
        rows = self.rows.row(0)
        batch = (rows.query_ids, rows.query_mask, rows.response_ids, rows.response_mask)
        devices = [policy.device] if policy.device.type == "cuda" else []
        # Dropout draws numbers; who loads a policy may have turned gradients off.
        with torch.random.fork_rng(devices), policy.training(), torch.enable_grad():
            policy.respond(*batch, Sampling()).logprobs.sum().backward()
        names = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
        still = [name for name, parameter in names.items() if parameter.grad is None]
        for parameter in names.values():
            parameter.grad = None
        if still:
            first = still[0].removeprefix("base_model.model.").replace(".default", "")
            raise SettingsError(
                f"policy.adapter: {path} trains {first}"
                f"{f' and {len(still) - 1} more' if len(still) > 1 else ''}, which this model does "
                "not use in a forward pass, so that it would never learn; train the adapter "
                "without it"
            )

    def _scored(self, policy: LoraPolicy, batches: list[CheckedRows]) -> Float[Tensor, "B R"]:
        logprobs = torch.zeros(self.rows.response_ids.shape, device=policy.device)
        first = 0
        for rows in batches:
            scored = self._respond(policy, rows, None)
            logprobs[first : first + len(scored), : scored.shape[1]] = scored
            first += len(scored)
        return logprobs

    def _replayed(self, policy: LoraPolicy) -> Float[Tensor, "B R"]:
        frozen = policy.frozen_states()
        self._respond(policy, self.rows, frozen)
        return self._respond(policy, self.rows, frozen)

    @torch.no_grad()
    def _respond(self, policy: LoraPolicy, rows: CheckedRows, frozen: Any) -> Tensor:
        try:
            return policy.respond(
                rows.query_ids,
                rows.query_mask,
                rows.response_ids,
                rows.response_mask,
                Sampling(),
                frozen,
                with_entropy=False,
            ).logprobs
        except _FAULTS as error:
            if is_out_of_memory(error):
                raise
            raise self._failed("a pass through its stack", error) from error

    @torch.no_grad()
    def _writes(self, policy: LoraPolicy, start: Float[Tensor, "B R"]) -> bool:
        """Whether decoding gives the same; the shortest response leaves the batch on the way."""
        rows, mask = self.rows, self.rows.response_mask
        written = torch.zeros_like(start)
        going = torch.arange(len(start), device=start.device)
        try:
            session = policy.decoding(rows.query_ids, rows.query_mask, Sampling(), mask.shape[1])
            ids: Tensor | None = None
            for position in range(mask.shape[1]):
                logprobs = session.next_logits(ids).log_softmax(dim=-1)
                here = rows.response_ids[going, position]
                written[going, position] = logprobs.gather(-1, here[:, None])[:, 0]
                last = position + 1 == mask.shape[1]
                kept = going if last else going[mask[going, position + 1]]
                if len(kept) < len(going):
                    session.keep(torch.isin(going, kept).nonzero()[:, 0])
                going = kept
                ids = rows.response_ids[going, position]
        except (*_FAULTS, AssertionError) as error:
            if policy.rereads or is_out_of_memory(error):
                raise
            return False
        return self._distance(written, start) <= self.tolerance

    def _compare(self, what: str, own: Float[Tensor, "B R"], expected: Tensor) -> None:
        distance = self._distance(own, expected)
        if distance <= self.tolerance:
            return
        row, column = divmod(int((own - expected).abs().argmax()), own.shape[1])
        raise SettingsError(
            f"policy.path: {self.what}: {what} differ from those of the model's own forward by "
            f"{distance:.3g} nats a token on the same tokens ({own[row, column]:.4g}, the model "
            f"says {expected[row, column]:.4g}), want at most {self.tolerance:g}; this "
            "architecture would be trained on wrong numbers: choose another model"
        )

    def _distance(self, own: Tensor, expected: Tensor) -> float:
        difference = (own - expected).abs()[self.rows.response_mask]
        return float(difference.mean()) if bool(difference.isfinite().all()) else float("inf")

    def _not_finite(self, model: PreTrainedModel) -> SettingsError:
        one = self.rows.row(0)
        inputs = {"input_ids": one.query_ids}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = one.response_ids
        dtype = str(model.dtype).removeprefix("torch.")
        return SettingsError(
            f"policy.path: {self.what}: logits are NaN or infinite, from "
            f"{first_wild_module(model, inputs)} on, although every weight is a finite number; its "
            f"numbers overflow in {dtype}: try policy.dtype=bfloat16 or float32, or choose another "
            "model"
        )

    def _failed(self, what: str, error: Exception) -> SettingsError:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return SettingsError(
            f"policy.path: {self.what}: {what} fails ({type(error).__name__}: {lines[0][:200]}); "
            "this architecture is not supported: choose another model"
        )


def _tolerance(backbone: PreTrainedModel) -> float:
    """Mean difference in nats that rounding may make.

    Measured on SmolLM2-135M, whose rows are the loudest: fp32 0.00001, bf16 0.07, nf4 0.07, and
    int8 0.36, as LLM.int8 looks for outliers in the whole batch. Wrong formulas differ by several.
    """
    method = getattr(getattr(backbone, "quantization_method", None), "value", "")
    if getattr(backbone, "is_loaded_in_8bit", False):
        return 1.0
    return 2e-3 if backbone.dtype == torch.float32 and not method else 0.3
