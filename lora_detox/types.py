"""The records that travel the arrow: each stage adds one, none edits an earlier one.

Dimensions: B responses in the batch, Q query tokens, R response tokens, V vocabulary. Every mask
has one polarity: True marks a real token. Queries are padded left or right as the model family
needs; responses are always padded right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Stage 1: prompts as text and as the ids that the policy reads.

    Attributes:
        texts: B prompt texts, exactly what `query_ids` encode (after template and cut), special
            tokens left out; with a chat template the user's message alone.
        query_ids: token ids [B, Q].
        query_mask: True at real query tokens [B, Q].
        references: B lists of reference responses, empty lists where a row has none.
        row_ids: B stable names of the data rows, for reports.
        sources: B prompts alone, without template and after the cut; empty where they are not
            known, then `texts` stand for them.
        columns: B rows' further columns (`data.columns`); empty where they are not known.
    """

    texts: list[str]
    query_ids: Int[Tensor, "B Q"]
    query_mask: Bool[Tensor, "B Q"]
    references: list[list[str]]
    row_ids: list[str]
    sources: list[str] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)

    def to(self, device: torch.device) -> "PromptBatch":
        """The same prompts with their tensors on a device."""
        return replace(
            self, query_ids=self.query_ids.to(device), query_mask=self.query_mask.to(device)
        )


@dataclass
class FrozenStates:
    """What training cannot change of some rows; filled by the first pass over them.

    Attributes:
        encoded: encoder states of the queries, where no adapter is in the encoder.
        lower: what the last decoder layer below the adapter returned.
        layout: where the tokens are (`policy.layout.TokenLayout`).
    """

    encoded: Tensor | None = None
    lower: Any = None
    layout: Any = None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Stage 2: the sampled responses, with the policy's numbers at sampling time.

    Attributes:
        prompts: the prompts that were answered.
        response_ids: sampled token ids [B, R], end-of-sequence included.
        response_mask: True at sampled tokens [B, R]; made from lengths, never from ids.
        logprobs: log p of each sampled token under the policy [B, R], nats, 0 at padding.
        ref_logprobs: the same under the reference policy [B, R].
        values: value head estimates [B, R], reward units, 0 at padding and without value head.
        response_texts: B decoded responses without special tokens.
        minibatches: row indices by minibatch and microbatch; the same microbatches serve here and
            in the update, so that a backbone whose numbers depend on the batch (int8) agrees with
            itself. Of several processes each has its own rows here.
        full_kl: exact KL(policy || reference) at each position [B, R], nats; only for the
            `full` penalty.
        frozen: what training cannot change of the rows, by minibatch and microbatch; None keeps
            nothing.
        noise_kl: mean of 0.5 * (difference of logprobs)^2, nats per token, between two passes that
            differ by rounding alone; 0 in fp32.
    """

    prompts: PromptBatch
    response_ids: Int[Tensor, "B R"]
    response_mask: Bool[Tensor, "B R"]
    logprobs: Float[Tensor, "B R"]
    ref_logprobs: Float[Tensor, "B R"]
    values: Float[Tensor, "B R"]
    response_texts: list[str]
    minibatches: tuple[tuple[Int[Tensor, "_"], ...], ...]
    full_kl: Float[Tensor, "B R"] | None = None
    frozen: tuple[tuple[FrozenStates | None, ...], ...] | None = None
    noise_kl: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Stage 3: one number per response, higher is better, with the toxicity behind it.

    Attributes:
        score: what the policy is rewarded with [B]; higher is better.
        toxicity: probability of toxic text [B], 0 to 1; high is bad.
        parts: named components of the score, each [B].
        scorer_id: model or function that scored, with its revision.
        factors: where the score is a product, its factors in [0, 1] by name, each [B].
    """

    score: Float[Tensor, "B"]
    toxicity: Float[Tensor, "B"]
    parts: Mapping[str, Float[Tensor, "B"]]
    scorer_id: str
    factors: Mapping[str, Float[Tensor, "B"]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """Stage 4: what each token earned.

    Attributes:
        rewards: -kl_coef * ref_kl, plus the score at the last real token [B, R].
        ref_kl: the chosen per-token penalty against the reference [B, R], nats.
        advantages: how much better than the baseline [B, R], whitened where the algorithm says so.
        returns: what the value head should have given; without one, the reward to go [B, R].
        kl_coef_in_loss: KL coefficient of the update's own KL loss, score units per nat; 0 where
            `rewards` are charged.
    """

    rewards: Float[Tensor, "B R"]
    ref_kl: Float[Tensor, "B R"]
    advantages: Float[Tensor, "B R"]
    returns: Float[Tensor, "B R"]
    kl_coef_in_loss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UpdateStats:
    """Stage 5: means over the minibatches of one update.

    Attributes:
        policy_loss: clipped surrogate loss.
        value_loss: clipped squared error of the values (before `value_coef`); None, as the value
            clip fraction, without value head.
        entropy: mean entropy of the token distributions in the first ppo_epoch, nats.
        approx_kl: mean of 0.5 * (new_logprobs - logprobs)^2, policy before against after, nats.
        noise_kl: the part of it that rounding alone would make (`Rollout.noise_kl`).
        clip_fraction: fraction of tokens whose ratio was clipped, in [0, 1].
        value_clip_fraction: fraction of tokens whose value was clipped, in [0, 1].
        ratio: mean of exp(new_logprobs - logprobs).
        first_ratio_error: max |ratio - 1| of the first minibatch, before any optimizer step.
        gradient_norm: mean norm before clipping.
        learning_rate: of the last optimizer step.
        optimizer_steps: how many were taken.
        skipped_steps: how many were skipped (ratio threshold, non-finite loss or gradient).
        ppo_epochs: how many passes over the rollout were begun.
        early_stopped: True if `target_kl` ended the update.
    """

    policy_loss: float
    value_loss: float | None
    entropy: float
    approx_kl: float
    noise_kl: float
    clip_fraction: float
    value_clip_fraction: float | None
    ratio: float
    first_ratio_error: float
    gradient_norm: float
    learning_rate: float
    optimizer_steps: int
    skipped_steps: int
    ppo_epochs: int
    early_stopped: bool

    @property
    def moved_kl(self) -> float:
        """How far the update went beyond rounding, nats per token; what is not finite stays so."""
        return moved_kl(self.approx_kl, self.noise_kl)


def moved_kl(approx_kl: float, noise_kl: float) -> float:
    """The KL of an update less that of rounding, at least 0.

    In bf16 logprobs of one token differ by some 0.05 nats between two passes whose weights differ
    by next to nothing: 0.0015 nats by this measure, however small the step (SmolLM2-135M). The
    squares of a move and of independent noise add up.

    Args:
        approx_kl: mean of 0.5 * (new_logprobs - logprobs)^2.
        noise_kl: the same of two passes that differ by rounding alone.

    Returns:
        Nats per token; NaN and infinity stay.
    """
    return max(approx_kl - noise_kl, 0.0) if math.isfinite(approx_kl) else approx_kl


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. The same transformation is applied when their logprobs are taken.

    Attributes:
        temperature: divides the logits, > 0.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set with at least this probability, in (0, 1].
        min_new_tokens: no end token is possible before this many tokens.
        greedy: take the likeliest token; for evaluation only.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_new_tokens: int = 0
    greedy: bool = False


@dataclass(frozen=True, kw_only=True)
class ResponseOutputs:
    """What the policy says of given responses; every tensor [B, R], 0 at padding."""

    logprobs: Float[Tensor, "B R"]
    values: Float[Tensor, "B R"]
    entropy: Float[Tensor, "B R"]


@runtime_checkable
class DecodingSession(Protocol):
    """A batch of responses being written, with its key-value cache."""

    def next_logits(self, token_ids: Int[Tensor, "B"] | None) -> Float[Tensor, "B V"]:
        """Append one token to each row (None at the start) and return the logits of the next."""

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""


@runtime_checkable
class Policy(Protocol):
    """What rollout and update need of a language model, whatever its family."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a response, at least one."""

    @property
    def pad_token_id(self) -> int:
        """Id that fills padding."""

    @property
    def has_value_head(self) -> bool:
        """Whether values are estimated; without a head they are 0."""

    @property
    def is_reference(self) -> bool:
        """Whether policy and reference are known to be one, so that one pass serves for both."""

    def decoding(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        sampling: Sampling,
        room: int | None = None,
    ) -> DecodingSession:
        """Begin to write responses of at most `room` tokens to a batch of queries."""

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
        """Logprobs, values and entropies of given responses, with gradient where enabled."""

    def frozen_states(self) -> FrozenStates:
        """An empty keeper for what training cannot change of some rows."""

    def nudged(self) -> AbstractContextManager[bool]:
        """Within this context passes differ by rounding alone; False where nothing is rounded."""

    def merged(self) -> AbstractContextManager[None]:
        """Within this context the adapter is merged into the weights where that is exact enough."""

    def full_kl(
        self,
        query_ids: Int[Tensor, "B Q"],
        query_mask: Bool[Tensor, "B Q"],
        response_ids: Int[Tensor, "B R"],
        response_mask: Bool[Tensor, "B R"],
        sampling: Sampling,
        frozen: FrozenStates | None = None,
    ) -> Float[Tensor, "B R"]:
        """Exact KL(policy || reference) at each response position, nats."""

    def reference(self) -> AbstractContextManager[None]:
        """Within this context the model is the reference policy."""

    def training(self) -> AbstractContextManager[None]:
        """Within this context the model is in training mode (checkpointing, adapter dropout)."""

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The adapter and value head parameters that the optimizer moves."""

    def decode_texts(
        self, response_ids: Int[Tensor, "B R"], response_mask: Bool[Tensor, "B R"]
    ) -> list[str]:
        """Responses as text, special tokens and the final end token left out."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns responses into scores; higher is better."""

    @property
    def scorer_id(self) -> str:
        """Name and revision, as reports show it."""

    def score(self, prompts: list[str], responses: list[str], **columns: Sequence[Any]) -> Scores:
        """Score each response (B of them); raises ScorerError rather than guess.

        Columns have B entries each (`references`, a list of texts each; `row_ids`; `sources`, the
        prompts without their template) where a data row is known. A scorer works without them, and
        may leave them unread.
        """


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Stage 6: one policy on fixed prompts; per-response arrays keep the order of the prompts.

    Attributes:
        prompts: the prompt texts.
        responses: the response texts.
        references: reference responses, empty lists where there are none.
        per_response: metric name -> one number per response.
        corpus: metric name -> one number for the whole set (distinct-n, perplexity).
        cost: what the responses cost: `generated_tokens`, those that were not kept included, and
            `generation_seconds`.
        columns: of each prompt's data row (`data.columns`); empty where they are not known.
    """

    prompts: list[str]
    responses: list[str]
    references: list[list[str]]
    per_response: Mapping[str, list[float]]
    corpus: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, int | float] = field(default_factory=dict)
    columns: list[dict[str, Any]] = field(default_factory=list)
