"""The schema of conf/: what can be set, of which type, and which combinations cannot work.

Meaning, unit, range and source of each key stand beside it in the YAML files of conf/. Hydra
composes them, this module turns the result into plain dataclasses once; below it nobody sees a
DictConfig.
"""

import difflib
import importlib.util
import math
import os
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.errors import SettingsError
from lora_detox.stage_settings import (
    ExportSettings,
    RewardModelSettings,
    SftSettings,
    check_export,
)

TRACKERS = ("wandb", "trackio")
REWARD_TERMS = ("toxicity", "rouge", "length", "similarity")


class Stage(StrEnum):
    """What `stage=` names; one module of lora_detox.stages each."""

    detox = "detox"
    evaluate = "evaluate"
    export = "export"
    sft = "sft"
    reward_model = "reward_model"


class TaskKind(StrEnum):
    """What the policy is for, which decides the quality metric."""

    summarization = "summarization"
    continuation = "continuation"


class Dtype(StrEnum):
    """Numbers of the frozen backbone."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class AdapterType(StrEnum):
    """What is trained."""

    lora = "lora"
    none = "none"


class QuantizationType(StrEnum):
    """How the frozen weights are stored."""

    none = "none"
    int8 = "int8"
    nf4 = "nf4"


class ScoreOutput(StrEnum):
    """Which number of a classifier is the score."""

    logit = "logit"
    softmax = "softmax"
    logprob = "logprob"
    sigmoid = "sigmoid"


class ScoredText(StrEnum):
    """What a classifier reads."""

    response = "response"
    prompt_response = "prompt_response"


class Combine(StrEnum):
    """How the classifiers of an ensemble are combined."""

    minimum = "minimum"
    mean = "mean"


class KlControlType(StrEnum):
    """Whether the price of a nat moves."""

    adaptive = "adaptive"
    fixed = "fixed"


class KlPenaltyType(StrEnum):
    """Which estimate of the KL to the reference is charged."""

    kl = "kl"
    abs = "abs"
    mse = "mse"
    full = "full"


class Protocol(StrEnum):
    """How stage=evaluate asks and counts."""

    plain = "plain"
    trl_guide = "trl_guide"
    three_sets = "three_sets"
    real_toxicity_prompts = "real_toxicity_prompts"


class Schedule(StrEnum):
    """How the learning rate moves over the iterations."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


@dataclass
class TaskSettings:
    """conf/task: what is asked of the policy."""

    name: str = MISSING
    kind: TaskKind = MISSING
    template: str = "{prompt}"
    miniature: str = MISSING


@dataclass
class PolicySettings:
    """conf/policy: which model."""

    path: str = MISSING
    revision: str | None = None
    adapter: str | None = None
    dtype: Dtype = Dtype.auto
    gradient_checkpointing: bool = False
    allow_fp16_t5: bool = False


@dataclass
class AdapterSettings:
    """conf/adapter: what learns."""

    type: AdapterType = AdapterType.lora
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=list)
    scope: str = "all"
    rslora: bool = False
    dora: bool = False


@dataclass
class QuantizationSettings:
    """conf/quantization: how the frozen weights are stored."""

    type: QuantizationType = QuantizationType.none
    int8_threshold: float = 6.0
    double_quant: bool = True


@dataclass
class FieldSettings:
    """Columns of a data source."""

    prompt: str = MISSING
    references: str | None = None
    toxicity: str | None = None
    id: str | None = None


@dataclass
class DataSettings:
    """conf/data: where prompts come from, filtered and cut how."""

    path: str = MISSING
    validation_path: str | None = None
    test_path: str | None = None
    config_name: str | None = None
    revision: str | None = None
    split_names: list[str] = field(default_factory=lambda: ["train", "validation", "test"])
    split_fractions: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    fields: FieldSettings = field(default_factory=FieldSettings)
    min_toxicity: float | None = None
    max_toxicity: float | None = None
    skip: str | None = None
    prefixes: list[str] = field(default_factory=list)
    query_tokens: list[int] | None = None
    max_query_tokens: int = 512
    split_seed: int = 0
    limit: int | None = None
    bad_row_limit: int = 100


@dataclass
class ScorerSettings:
    """conf/reward and conf/judge: who scores."""

    path: str | None = MISSING
    revision: str | None = None
    label: str | None = None
    output: ScoreOutput = ScoreOutput.logit
    text: ScoredText = ScoredText.response
    function: str | None = None
    batch_size: int = 64
    max_tokens: int | None = None
    probe: bool = True
    ensemble: list[str] = field(default_factory=list)
    combine: Combine = Combine.minimum
    terms: dict[str, float] = field(default_factory=dict)
    length_words: int = 20
    signs: dict[str, float] = field(default_factory=dict)


@dataclass
class AlgorithmSettings:
    """conf/algorithm: the update and its numbers."""

    name: str = MISSING
    iterations: int = MISSING
    rollout_batch_size: int = MISSING
    minibatch_size: int = MISSING
    microbatch_size: int = MISSING
    ppo_epochs: int = MISSING
    learning_rate: float = MISSING
    value_learning_rate: float | None = None
    schedule: Schedule = Schedule.constant
    warmup_iterations: int = 0
    weight_decay: float = 0.0
    kl_control: KlControlType = KlControlType.adaptive
    kl_coef: float = 0.2
    kl_target: float = 6.0
    kl_horizon: float = 10000
    kl_penalty: KlPenaltyType = KlPenaltyType.kl
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_coef: float = 0.1
    max_grad_norm: float | None = None
    target_kl: float | None = None
    ratio_threshold: float = 10.0
    scale_scores: bool = True
    center_scores: bool = False
    score_clip: float | None = None
    length_target: float | None = None
    length_gain: float = 0.5
    whiten_rewards: bool = False
    whiten_advantages: bool = True


@dataclass
class GenerationSettings:
    """conf/generation: how responses are sampled."""

    response_tokens: list[int] = MISSING
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_new_tokens: int = 0
    batch_size: int = 32


@dataclass
class EvaluationSettings:
    """conf/evaluation: when, on how much."""

    every: int = MISSING
    validation_prompts: int = MISSING
    test_prompts: int = MISSING
    samples_per_prompt: int = 1
    batch_size: int = 64
    greedy: bool = False
    seed: int = 1000
    resamples: int = 1000
    protocol: Protocol = Protocol.plain
    models: list[Any] = field(default_factory=list)
    prompts: int | None = None
    samples: int | None = None
    new_tokens: int | None = None
    sets: dict[str, DataSettings] = field(default_factory=dict)


@dataclass
class TrackerSettings:
    """conf/tracker: who else is told."""

    names: list[str] = field(default_factory=list)
    project: str = "lora_detox"


@dataclass
class DebugSettings:
    """conf/debug: aids."""

    name: str = "none"
    tiny_model: bool = False
    reuse_first_batch: bool = False


@dataclass
class CheckpointSettings:
    """When the state of training is saved."""

    every: int = 0
    keep: int = 2


@dataclass
class Settings:
    """Everything a run needs; see conf/config.yaml for the groups that fill it."""

    stage: Stage = Stage.detox
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    run_dir: str = MISSING
    run: str | None = None
    task: TaskSettings = field(default_factory=TaskSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    data: DataSettings = field(default_factory=DataSettings)
    reward: ScorerSettings = field(default_factory=ScorerSettings)
    judge: ScorerSettings = field(default_factory=ScorerSettings)
    algorithm: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    sft: SftSettings = field(default_factory=SftSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    debug: DebugSettings = field(default_factory=DebugSettings)


def register_schema() -> None:
    """Make the schema known to Hydra under the name that conf/config.yaml starts from."""
    ConfigStore.instance().store(name="settings_schema", node=Settings)


def settings_from(config: DictConfig) -> Settings:
    """Plain, resolved and checked settings from what Hydra composed.

    Args:
        config: the composed configuration.

    Returns:
        Settings without any trace of OmegaConf.

    Raises:
        SettingsError: a mandatory key without a value, or a combination that cannot work.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SettingsError(
            f"{', '.join(missing)}: no value given; set it, as in {missing[0]}=VALUE"
        )
    try:
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise SettingsError(str(error)) from error
    if not isinstance(settings, Settings):
        raise TypeError(f"the composed configuration is a {type(settings).__name__}, not Settings")
    check_settings(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """Find values and combinations that cannot work, before anything heavy is imported.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with what was got, what is wanted and the key to change.
    """
    _check_ranges(settings)
    _check_batches(settings.algorithm)
    _check_adapter(settings)
    _check_reward_terms(settings)
    _check_lengths(settings)
    _check_protocol(settings)
    if settings.stage is Stage.export:
        check_export(settings.run, settings.export)
    _check_packages(settings)
    _check_run_dir(settings)


_POSITIVE = (
    "algorithm.iterations",
    "algorithm.rollout_batch_size",
    "algorithm.minibatch_size",
    "algorithm.microbatch_size",
    "algorithm.ppo_epochs",
    "algorithm.learning_rate",
    "algorithm.kl_target",
    "algorithm.kl_horizon",
    "algorithm.clip_range",
    "algorithm.value_clip_range",
    "algorithm.ratio_threshold",
    "algorithm.max_grad_norm",
    "algorithm.target_kl",
    "algorithm.length_target",
    "algorithm.length_gain",
    "algorithm.score_clip",
    "algorithm.value_learning_rate",
    "adapter.rank",
    "adapter.alpha",
    "generation.temperature",
    "generation.batch_size",
    "evaluation.every",
    "evaluation.validation_prompts",
    "evaluation.test_prompts",
    "evaluation.samples_per_prompt",
    "evaluation.batch_size",
    "evaluation.resamples",
    "evaluation.prompts",
    "evaluation.samples",
    "evaluation.new_tokens",
    "sft.epochs",
    "sft.max_steps",
    "sft.learning_rate",
    "sft.max_grad_norm",
    "sft.batch_size",
    "sft.gradient_accumulation",
    "sft.max_response_tokens",
    "sft.log_every",
    "reward_model.rank",
    "reward_model.epochs",
    "reward_model.max_steps",
    "reward_model.learning_rate",
    "reward_model.batch_size",
    "reward_model.max_tokens",
    "reward_model.log_every",
    "reward_model.identity_least",
    "data.max_query_tokens",
    "data.limit",
    "reward.batch_size",
    "reward.max_tokens",
    "judge.batch_size",
    "reward.length_words",
    "judge.length_words",
    "judge.max_tokens",
    "checkpoint.keep",
    "threads",
)
_NOT_NEGATIVE = (
    "algorithm.kl_coef",
    "algorithm.value_coef",
    "algorithm.weight_decay",
    "algorithm.warmup_iterations",
    "generation.top_k",
    "generation.min_new_tokens",
    "quantization.int8_threshold",
    "data.bad_row_limit",
    "checkpoint.every",
    "sft.warmup_steps",
    "sft.weight_decay",
    "reward_model.warmup_steps",
    "reward_model.weight_decay",
    "seed",
)
_UNIT = (
    "algorithm.gamma",
    "algorithm.gae_lambda",
    "adapter.dropout",
    "generation.top_p",
    "data.min_toxicity",
    "data.max_toxicity",
    "reward_model.toxic_from",
)


def _check_ranges(settings: Settings) -> None:
    for keys, want in (
        (_POSITIVE, "a number above 0"),
        (_NOT_NEGATIVE, "0 or more"),
        (_UNIT, "a number from 0 to 1"),
    ):
        for key in keys:
            value: Any = settings
            for part in key.split("."):
                value = getattr(value, part)
            if value is None:
                continue
            too_low = value <= 0 if keys is _POSITIVE else value < 0
            if too_low or (keys is _UNIT and value > 1) or math.isnan(value):
                raise SettingsError(f"{key}: got {value}, want {want}")
    if settings.generation.top_p == 0:
        raise SettingsError("generation.top_p: got 0, want a number above 0, at most 1")


def _check_batches(algorithm: AlgorithmSettings) -> None:
    for small_key, large_key in (
        ("minibatch_size", "rollout_batch_size"),
        ("microbatch_size", "minibatch_size"),
    ):
        small, large = getattr(algorithm, small_key), getattr(algorithm, large_key)
        if large % small:
            raise SettingsError(
                f"algorithm.{small_key}={small} does not divide algorithm.{large_key}={large}; "
                f"want one of {[n for n in range(1, large + 1) if large % n == 0]}"
            )


def _check_adapter(settings: Settings) -> None:
    if settings.adapter.type is AdapterType.none:
        quantized = settings.quantization.type
        reason = (
            f"quantization={quantized.value} weights have no gradient"
            if quantized is not QuantizationType.none
            else "the base weights stay frozen here, so that base and reference share one backbone"
        )
        raise SettingsError(
            f"adapter=none asks for full-weight training, but {reason}; use adapter=lora"
        )
    if settings.reward.path is None and settings.reward.function is None:
        raise SettingsError("reward.path: got null; want a classifier, or set reward.function")
    if settings.reward.function is not None and settings.judge.path is None:
        raise SettingsError(
            "judge.path: got null; with reward.function a classifier must measure toxicity"
        )


def _check_reward_terms(settings: Settings) -> None:
    for key, scorer in (("reward", settings.reward), ("judge", settings.judge)):
        unknown = sorted(set(scorer.terms) - set(REWARD_TERMS))
        if unknown:
            raise SettingsError(
                f"{key}.terms: got {', '.join(unknown)}, want some of {', '.join(REWARD_TERMS)}"
            )
        if scorer.terms and key == "judge":
            raise SettingsError("judge.terms: a judge measures toxicity alone; want {}")
        if (scorer.terms or scorer.ensemble) and scorer.path is None:
            raise SettingsError(
                f"{key}.path: got null; {key}.terms and {key}.ensemble want a classifier there"
            )


def _check_lengths(settings: Settings) -> None:
    for key, value, least in (
        ("generation.response_tokens", settings.generation.response_tokens, 1),
        ("data.query_tokens", settings.data.query_tokens, 1),
    ):
        if value is not None and not (len(value) == 2 and least <= value[0] <= value[1]):
            raise SettingsError(
                f"{key}: got {value}, want [least, most] with {least} <= least <= most"
            )
    least = settings.generation.response_tokens[0]
    if settings.generation.min_new_tokens > least:
        raise SettingsError(
            f"generation.min_new_tokens={settings.generation.min_new_tokens} exceeds the least of "
            f"generation.response_tokens={settings.generation.response_tokens}"
        )
    fractions = settings.data.split_fractions
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SettingsError(
            f"data.split_fractions: got {fractions}, want three numbers above 0 that sum to 1 "
            "(train, validation, test)"
        )
    if settings.task.template.count("{prompt}") != 1:
        raise SettingsError(
            f"task.template: got {settings.task.template!r}, want a text with {{prompt}} in it once"
        )


def _check_protocol(settings: Settings) -> None:
    if settings.stage is not Stage.evaluate:
        return
    evaluation, data = settings.evaluation, settings.data
    if evaluation.protocol is Protocol.trl_guide and data.min_toxicity is None:
        raise SettingsError(
            "data.min_toxicity: got null; evaluation.protocol=trl_guide asks toxic prompts, so "
            "name their least toxicity, as in data.min_toxicity=0.5 (or data=wiki_toxic)"
        )
    if evaluation.protocol is Protocol.three_sets and not evaluation.sets:
        raise SettingsError(
            "evaluation.sets: got none; evaluation.protocol=three_sets wants further sets, as in "
            "+data@evaluation.sets.toxic=wiki_toxic +data@evaluation.sets.benign=wikitext"
        )


def _check_packages(settings: Settings) -> None:
    """What is optional is installed, found out without importing it."""
    names = settings.tracker.names
    for name in names:
        if name not in {*TRACKERS, "tensorboard", "jsonl"}:
            raise SettingsError(
                f"tracker.names: got {name}, want {' or '.join(TRACKERS)} (metrics.jsonl and "
                "TensorBoard are always written)"
            )
    needed = [("tracker.names", name, "trackers") for name in names if name in TRACKERS]
    if settings.quantization.type is not QuantizationType.none:
        needed.append(("quantization", "bitsandbytes", "quantization"))
    if settings.stage is Stage.sft and settings.task.kind is TaskKind.continuation:
        needed.append(("stage=sft", "trl", "trl"))
    for key, package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise SettingsError(
                f"{key}: the package {package} is not installed; "
                f"pip install 'lora-detox[{extra}]', or leave it out"
            )


def _check_run_dir(settings: Settings) -> None:
    run_dir = Path(settings.run_dir)
    marks = ("summary.json", "metrics.jsonl", "checkpoints", "adapter")
    held = [name for name in marks if (run_dir / name).exists()]
    if held and not settings.resume:
        raise SettingsError(
            f"hydra.run.dir: {os.path.relpath(run_dir)} already holds another run "
            f"({', '.join(held)}); name another folder, or resume=true to go on with that run"
        )


def settings_yaml(settings: Settings) -> str:
    """The resolved settings as YAML, as config.yaml of the run directory holds them."""
    text: str = OmegaConf.to_yaml(OmegaConf.create(_plain(settings)))
    return text


def _plain(node: Any) -> Any:
    """Dataclasses and enums as dicts and their values."""
    if is_dataclass(node):
        return {entry.name: _plain(getattr(node, entry.name)) for entry in fields(node)}
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return node.value if isinstance(node, StrEnum) else node


def known_keys(node: type = Settings, prefix: str = "") -> list[str]:
    """Every key that can be set, dotted."""
    keys: list[str] = []
    for entry in fields(node):
        nested = entry.type
        if isinstance(nested, type) and is_dataclass(nested):
            keys += known_keys(nested, f"{prefix}{entry.name}.")
        else:
            keys.append(prefix + entry.name)
    return keys


def closest_keys(key: str, groups: list[str]) -> list[str]:
    """Known keys and groups that a mistyped one may have meant."""
    candidates = known_keys() + groups
    close = difflib.get_close_matches(key, candidates, n=3, cutoff=0.6)
    last = key.rsplit(".", 1)[-1]
    close += [k for k in candidates if k.rsplit(".", 1)[-1] == last and k not in close]
    return close[:4]
