"""Settings -> predicted seconds of an iteration by phase; no weight is loaded."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lora_detox.builders.policy import adapter_plan
from lora_detox.choices import TrainerKind
from lora_detox.machine import resolve_device
from lora_detox.memory.advice import changed
from lora_detox.memory.predict import SPECIAL_TOKENS, scorer_config, scorer_shape
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.settings import ScorerSettings, Settings
from lora_detox.timing.phases import (
    GENERATE,
    REFERENCE,
    SCORE,
    UPDATE,
    Round,
    classifier_seconds,
    phase_seconds,
)
from lora_detox.timing.shallow import depth_of, write_shallow
from lora_detox.types import PromptBatch

FEW_LAYERS = 4
"""A model of no more layers is timed whole."""
PART = 4
"""Of a deeper one, the first layer is timed, and the first with a quarter of the layers."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What an iteration takes, and a run.

    Attributes:
        phases: seconds of an iteration by phase.
        evaluations: seconds of all evaluations of the run.
        iterations: of the run.
        layers: depths that were timed.
        notes: what was assumed, in words.
    """

    phases: dict[str, float]
    evaluations: float
    iterations: int
    layers: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def iteration(self) -> float:
        """Seconds of an iteration."""
        return sum(self.phases.values())

    @property
    def run(self) -> float:
        """Seconds of the run, loading left out."""
        return self.iterations * self.iteration + self.evaluations

    @property
    def largest(self) -> str:
        """The phase that takes longest."""
        return max(self.phases, key=lambda phase: self.phases[phase])


def refusal(settings: Settings, device: str) -> str | None:
    """Why seconds cannot be predicted, in words; None where they can."""
    if not settings.plan.seconds:
        return "plan.seconds=false: seconds are not predicted"
    if resolve_device(settings.device).type != device:
        return f"seconds are not predicted: they are measured, and plan.device={device} is not here"
    kind = settings.algorithm.trainer.kind
    if kind is not TrainerKind.native:
        return f"seconds are not predicted: algorithm.trainer.kind={kind.value} has its own loop"
    return None


def predict_seconds(
    settings: Settings,
    plan: BackbonePlan,
    config: PretrainedConfig,
    prompts: PromptBatch,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Seconds:
    """Do the real phases with one layer and with a quarter of them, and go on in a straight line.

    Args:
        settings: composed and checked.
        plan: of the backbone, its dtype settled.
        config: of the whole model.
        prompts: any number of training prompts.
        tokenizer: of the policy; None where it cannot be read.

    Returns:
        Seconds by phase.
    """
    rows, rollout = rows_of_a_round(settings), settings.algorithm.rollout_batch_size
    whole = depth_of(config)
    layers = depths(whole, settings.adapter.scope)
    taken = _cycled(prompts, rows)
    timed = [_timed(settings, plan, config, (taken, tokenizer), depth) for depth in layers]
    phases = {
        phase: _at_depth(layers, [one[phase] for one in timed], whole) * rollout / rows
        for phase in timed[0]
    }
    phases[UPDATE] *= settings.algorithm.ppo_epochs
    query = prompts.query_ids.shape[1]
    reward, judge = (_of_a_text(settings, key, query) for key in ("reward", "judge"))
    phases[SCORE] = reward * rollout * (1 + prefix_texts(settings))
    answered = (phases[GENERATE] + phases[REFERENCE]) / rollout + reward + judge
    return Seconds(
        phases=phases,
        evaluations=answered * evaluated_responses(settings),
        iterations=settings.algorithm.iterations,
        layers=layers,
        notes=_notes(settings, plan),
    )


def rows_of_a_round(settings: Settings) -> int:
    """Rows that are timed: whole minibatches, and as many as are written together."""
    algorithm = settings.algorithm
    written = min(settings.generation.batch_size, algorithm.rollout_batch_size)
    return math.ceil(written / algorithm.minibatch_size) * algorithm.minibatch_size


def depths(whole: int, scope: str) -> tuple[int, ...]:
    """Depths to time: layers above the lowest adapted one cost more than those below.

    Args:
        whole: layers of the model.
        scope: of the adapter: `last_N` leaves the others as they are.

    Returns:
        One depth, or a smaller and a larger one.
    """
    least = 1 + (int(scope.removeprefix("last_")) if scope.startswith("last_") else 0)
    more = least + math.ceil(whole / PART)
    return (whole,) if whole <= FEW_LAYERS or more >= whole else (least, more)


def prefix_texts(settings: Settings) -> float:
    """Prefixes that are scored beside each response, in whole responses' worth of tokens."""
    every = settings.algorithm.expert.prefix_credit_every
    if every is None:
        return 0.0
    most = settings.generation.response_tokens[1]
    return sum(
        (cut + SPECIAL_TOKENS) / (most + SPECIAL_TOKENS) for cut in range(every, most, every)
    )


def evaluated_responses(settings: Settings) -> int:
    """Responses of all evaluations of a run: validation at the start and on its way, test twice."""
    evaluation = settings.evaluation
    times = 1 + math.ceil(settings.algorithm.iterations / evaluation.every)
    validation = evaluation.validation_prompts * evaluation.validation_samples
    return times * validation + 2 * evaluation.test_prompts * evaluation.samples_per_prompt


def faster(settings: Settings, seconds: Seconds) -> tuple[str, float, str]:
    """What lowers the largest cost: an override, seconds of an iteration with it, what it costs."""
    algorithm, (low, high) = settings.algorithm, settings.generation.response_tokens
    every, half = algorithm.expert.prefix_credit_every, seconds.phases[seconds.largest] / 2
    if seconds.largest == UPDATE and algorithm.ppo_epochs > 1:
        epochs = algorithm.ppo_epochs // 2
        left = half * 2 * epochs / algorithm.ppo_epochs
        change, cost = f"algorithm.ppo_epochs={epochs}", "fewer steps on each response"
    elif seconds.largest == SCORE and every is not None:
        left = half * 2 * _with_credit(settings, 2 * every) / _with_credit(settings, every)
        change, cost = f"algorithm.expert.prefix_credit_every={2 * every}", "credit is less exact"
    elif seconds.largest == GENERATE and high > 1:
        left = half
        change = f"generation.response_tokens=[{max(1, low // 2)},{high // 2}]"
        cost = "responses of half the length"
    else:
        left = half
        change = f"algorithm.rollout_batch_size={max(1, algorithm.rollout_batch_size // 2)}"
        cost = "half the responses in each iteration; lower minibatch_size where it does not divide"
    return change, seconds.iteration - 2 * half + left, cost


def _with_credit(settings: Settings, every: int) -> float:
    key = "algorithm.expert.prefix_credit_every"
    return 1 + prefix_texts(changed(settings, [(key, every)]))


def _timed(
    settings: Settings,
    plan: BackbonePlan,
    config: PretrainedConfig,
    prompts: tuple[PromptBatch, PreTrainedTokenizerBase | None],
    depth: int,
) -> dict[str, float]:
    """Seconds of one epoch over some rows with so many layers."""
    batch, tokenizer = prompts
    cut = [("algorithm.rollout_batch_size", len(batch.texts)), ("algorithm.ppo_epochs", 1)]
    with tempfile.TemporaryDirectory(prefix="lora_detox_plan_") as folder:
        write_shallow(Path(folder), config, depth, getattr(torch, plan.dtype), tokenizer)
        shallow = replace(plan, path=folder, revision=None, adapter=None, chat=False, system=None)
        policy = load_policy(shallow, adapter_plan(settings))
    policy.static_cache = settings.generation.static_cache
    policy.dequantize = settings.quantization.dequantize_for_decoding
    return phase_seconds(
        Round(policy=policy, settings=changed(settings, cut), prompts=batch.to(policy.device))
    )


def _at_depth(layers: Sequence[int], seconds: Sequence[float], whole: int) -> float:
    """On the straight line through the measurements, and never below the last."""
    if len(layers) == 1:
        return seconds[0]
    by_layer = (seconds[1] - seconds[0]) / (layers[1] - layers[0])
    return max(seconds[1], seconds[1] + by_layer * (whole - layers[1]))


def _of_a_text(settings: Settings, key: str, query: int) -> float:
    """Seconds that reward or judge take for a text of the most tokens; 0 for Python functions."""
    scorer: ScorerSettings = getattr(settings, key)
    device, total = resolve_device(settings.device), 0.0
    for path in [] if scorer.path is None else [scorer.path, *scorer.ensemble]:
        config, _ = scorer_config(path, scorer, key)
        texts, tokens = scorer_shape(settings, scorer, query)
        total += classifier_seconds(config, texts, tokens, device) / texts
    return total


def _cycled(prompts: PromptBatch, count: int) -> PromptBatch:
    """So many prompts, from the first again where there are fewer."""
    rows = [row % len(prompts.texts) for row in range(count)]
    return PromptBatch(
        texts=[prompts.texts[row] for row in rows],
        query_ids=prompts.query_ids[rows],
        query_mask=prompts.query_mask[rows],
        references=[prompts.references[row] for row in rows],
        row_ids=[prompts.row_ids[row] for row in rows],
    )


def _notes(settings: Settings, plan: BackbonePlan) -> tuple[str, ...]:
    notes = ["seconds: responses are as long as generation.response_tokens lets them be"]
    if settings.reward.function is not None:
        notes.append("seconds: the time of reward.function is not known")
    if plan.adapter is not None:
        notes.append("seconds: timed with a fresh LoRA in the place of policy.adapter")
    return tuple(notes)
