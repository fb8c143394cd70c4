"""One prompt, answered by the original model and by the detoxified one, each answer scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_detox.builders.data import prompt_template
from lora_detox.builders.lengths import check_batch
from lora_detox.errors import DataError
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.strength import at_strength
from lora_detox.prompts.batching import fixed_batches, repeat_prompts
from lora_detox.prompts.rows import PromptRow
from lora_detox.ranges import (
    LEAST_TEMPERATURE,
    between,
    check_ranges,
    count,
    not_negative,
    positive_fraction,
)
from lora_detox.rollout import generate_responses
from lora_detox.scores import score_prompts
from lora_detox.settings import Settings
from lora_detox.settings.stages import (
    MOST_CHAT_SAMPLES,
    MOST_CHAT_STRENGTH,
    MOST_CHAT_TEMPERATURE,
    MOST_CHAT_TOKENS,
)
from lora_detox.types import PromptBatch, Sampling, Scorer

MOST_SEED = 2**53
"""Beyond it a page's numbers are no longer exact."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, and how it is answered; the same draws for every model.

    Attributes:
        prompt: as a person typed it, without the run's template.
        strength: of the adapter; 0 is the bare base, 1 the adapter as it was trained.
        samples: answers of each model.
        new_tokens: longest answer, tokens.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: keep the likeliest tokens of this probability, in (0, 1].
        top_k: keep so many of the likeliest tokens; 0 keeps all.
        seed: of the draws.
    """

    prompt: str = ""
    strength: float = between(1.0, 0, MOST_CHAT_STRENGTH)
    samples: int = count(1, "answers", most=MOST_CHAT_SAMPLES)
    new_tokens: int = count(32, "tokens", most=MOST_CHAT_TOKENS)
    temperature: float = between(1.0, 0, MOST_CHAT_TEMPERATURE)
    top_p: float = positive_fraction(1.0)
    top_k: int = not_negative(0)
    seed: int = between(0, 0, MOST_SEED)

    @property
    def _greedy(self) -> bool:
        """At 0, and so near to it that logits over it would not be numbers."""
        return self.temperature < LEAST_TEMPERATURE

    def sampling(self, min_new_tokens: int) -> Sampling:
        """The distribution that tokens are drawn from."""
        return Sampling(
            temperature=1.0 if self._greedy else self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_new_tokens=min(min_new_tokens, self.new_tokens),
            greedy=self._greedy,
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response with its scores.

    Attributes:
        text: of the response.
        tokens: how many it has.
        score: what training would have rewarded it with, higher is better; None without a reward.
        toxicity: by name of the scorer, in [0, 1], high is bad.
    """

    text: str
    tokens: int
    score: float | None
    toxicity: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What both models said.

    Attributes:
        original: of the base, the adapter off.
        detoxified: with the adapter at the strength that was wanted.
        was_cut: whether the end of the prompt was left out, as `data.max_query_tokens` asks.
    """

    original: tuple[Answer, ...]
    detoxified: tuple[Answer, ...]
    was_cut: bool = False


def answers(
    policy: LoraPolicy,
    scorers: Mapping[str, Scorer],
    question: Question,
    settings: Settings,
    original: Sequence[Answer] | None = None,
) -> Answers:
    """Ask the original and the detoxified model, and score what they say.

    Args:
        policy: the base with the adapter of a run; its reference is the bare base.
        scorers: by name, "reward" among them where there is one.
        question: the prompt, and how it is answered.
        settings: of the run, for the template and the bounds of a prompt.
        original: answers of the base that are known already; None asks it.

    Returns:
        As many answers of each model as the question wants.

    Raises:
        SettingsError: a number out of its range, or a prompt that does not fit the model.
        DataError: an empty prompt.
    """
    check_ranges(question, "chat.")
    prompts, was_cut = _encoded(policy, question, settings)
    if original is None:
        with policy.reference():
            original = _scored(policy, scorers, question, settings, prompts)
    with at_strength(policy, question.strength):
        detoxified = _scored(policy, scorers, question, settings, prompts)
    return Answers(original=tuple(original), detoxified=detoxified, was_cut=was_cut)


def _encoded(
    policy: LoraPolicy, question: Question, settings: Settings
) -> tuple[PromptBatch, bool]:
    """The prompt as often as it is answered, and whether its end was cut."""
    text = question.prompt.encode("utf-8", "replace").decode()  # half a character has no token
    if not text.strip():
        raise DataError("the prompt is empty; type one")
    row = PromptRow(row_id="typed", prompt=text, references=[], toxicity=None)
    tokenizer, family = policy.tokenizer, policy.family
    (batch,) = fixed_batches(
        [row],
        tokenizer,
        template=prompt_template(settings, tokenizer),
        max_query_tokens=settings.data.max_query_tokens,
        padding_side=family.padding_side,
        batch_size=1,
        add_special_tokens=family.add_special_tokens,
    )
    check_batch(
        policy.backbone.config,
        tokenizer,
        batch,
        question.new_tokens,
        response_key="chat.new_tokens",
    )
    was_cut = len(batch.sources[0].strip()) < len(text.strip())
    return repeat_prompts(batch, question.samples).to(policy.device), was_cut


def _scored(
    policy: LoraPolicy,
    scorers: Mapping[str, Scorer],
    question: Question,
    settings: Settings,
    prompts: PromptBatch,
) -> tuple[Answer, ...]:
    """Answers of the policy as it is now."""
    responses = generate_responses(
        policy,
        prompts,
        question.sampling(settings.generation.min_new_tokens),
        response_tokens=(question.new_tokens, question.new_tokens),
        batch_size=settings.generation.batch_size,
        seed=question.seed,
    )
    scores = {
        name: score_prompts(scorer, prompts, responses.texts) for name, scorer in scorers.items()
    }
    rewards = scores["reward"].score.tolist() if "reward" in scores else None
    tokens = responses.mask.sum(dim=1).tolist()
    return tuple(
        Answer(
            text=text,
            tokens=tokens[row],
            score=None if rewards is None else rewards[row],
            toxicity={name: float(one.toxicity[row]) for name, one in scores.items()},
        )
        for row, text in enumerate(responses.texts)
    )
