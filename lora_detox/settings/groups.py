"""The groups of conf/ and the whole that they make, with types and defaults.

Meaning, unit, range and source of each key stand beside it in the YAML files of conf/.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from lora_detox.choices import (
    AdapterType,
    Combine,
    Compile,
    Dequantize,
    Dtype,
    Protocol,
    QuantizationType,
    ScoredText,
    ScoreOutput,
    Stage,
    TaskKind,
    TermsCombine,
    Turns,
)
from lora_detox.ranges import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    MOST_TOKENS,
    between,
    count,
    fraction,
    not_negative,
    positive,
    positive_fraction,
)
from lora_detox.settings.algorithm import AlgorithmSettings
from lora_detox.settings.budget import BudgetSettings, GuardSettings
from lora_detox.settings.decoding import DecodingSettings
from lora_detox.settings.rollout import RolloutSettings
from lora_detox.settings.stages import (
    ChatSettings,
    ExportSettings,
    RewardModelSettings,
    SftSettings,
)


@dataclass
class TaskSettings:
    """conf/task: what is asked of the policy."""

    name: str = MISSING
    kind: TaskKind = MISSING
    template: str = "{prompt}"
    chat: bool = False
    system: str | None = None
    length_debias: bool = False
    miniature: str = MISSING


@dataclass
class PolicySettings:
    """conf/policy: which model."""

    path: str = MISSING
    revision: str | None = None
    adapter: str | None = None
    dtype: Dtype = Dtype.auto
    gradient_checkpointing: bool = False
    compile: Compile = Compile.none
    sharded: bool = False
    allow_fp16_t5: bool = False
    trust_remote_code: bool = False
    shape: dict[str, Any] = field(default_factory=dict)


@dataclass
class AdapterSettings:
    """conf/adapter: what learns."""

    type: AdapterType = AdapterType.lora
    rank: int = positive(16)
    alpha: float = positive(32.0)
    dropout: float = fraction(0.0)
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    scope: str = "all"
    rslora: bool = False
    dora: bool = False
    init: str = "true"
    force_init: bool = False


@dataclass
class QuantizationSettings:
    """conf/quantization: how the frozen weights are stored."""

    type: QuantizationType = QuantizationType.none
    int8_threshold: float = not_negative(6.0)
    double_quant: bool = True
    dequantize_for_decoding: Dequantize = Dequantize.auto


@dataclass
class FieldSettings:
    """Columns of a data source."""

    prompt: str = MISSING
    references: str | None = None
    toxicity: str | None = None
    id: str | None = None


CARRIED = ("group", "domain", "identity", "category", "axis", "target", "entity", "mentions")
"""Columns that say whom a prompt is about, as data sets name them."""


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
    columns: list[str] = field(default_factory=lambda: list(CARRIED))
    min_toxicity: float | None = fraction(None)
    max_toxicity: float | None = fraction(None)
    turns: Turns = Turns.auto
    encoding: str | None = None
    delimiter: str | None = None
    skip: str | None = None
    prefixes: list[str] = field(default_factory=list)
    query_tokens: list[int] | None = None
    max_query_tokens: int = count(512, "tokens", most=MOST_TOKENS)
    split_seed: int = 0
    limit: int | None = positive(None, "rows")
    bad_row_limit: int = not_negative(100, "rows")
    max_line_mb: int = positive(64, "MiB")
    max_total_mb: int = positive(4096, "MiB")
    cache: bool = True


@dataclass
class TermSettings:
    """Weights of a composite reward, exponents in a product; 0 leaves a part out."""

    toxicity: float = 1.0
    rouge: float = 0.0
    length: float = 0.0
    similarity: float = 0.0
    fluency: float = 0.0


@dataclass
class FluencySettings:
    """The classifier of the term `fluency`."""

    path: str | None = None
    revision: str | None = None
    label: str = "fluent"
    max_tokens: int | None = positive(None, "tokens")


@dataclass
class ScorerSettings:
    """conf/reward and conf/judge: who scores."""

    path: str | None = MISSING
    revision: str | None = None
    label: str | None = None
    output: ScoreOutput = ScoreOutput.logit
    text: ScoredText = ScoredText.response
    function: str | None = None
    timeout: float | None = positive(None, "seconds")
    dtype: Dtype = Dtype.auto
    batch_size: int = positive(64)
    max_tokens: int | None = positive(None, "tokens")
    probe: bool = True
    probe_texts: Any = field(default_factory=dict)
    ensemble: list[str] = field(default_factory=list)
    combine: Combine = Combine.minimum
    terms: TermSettings = field(default_factory=TermSettings)
    terms_combine: TermsCombine = TermsCombine.sum
    encoder: str | None = None
    encoder_revision: str | None = None
    fluency: FluencySettings = field(default_factory=FluencySettings)
    length_words: int = positive(20, "words")
    signs: dict[str, float] = field(default_factory=dict)
    length_debias: bool | None = None


@dataclass
class GenerationSettings:
    """conf/generation: how responses are sampled."""

    response_tokens: list[int] = MISSING
    temperature: float = between(1.0, LEAST_TEMPERATURE, MOST_TEMPERATURE)
    top_k: int = not_negative(0)
    top_p: float = positive_fraction(1.0)
    min_new_tokens: int = not_negative(0, "tokens")
    batch_size: int = positive(32, "prompts")
    static_cache: bool | None = None


@dataclass
class EvaluationSettings:
    """conf/evaluation: when, on how much."""

    every: int = positive(MISSING, "iterations")
    validation_prompts: int = positive(MISSING)
    test_prompts: int = positive(MISSING)
    samples_per_prompt: int = count(1, "responses", most=10_000)
    validation_samples: int = count(1, "responses", most=10_000)
    batch_size: int = positive(128)
    greedy: bool = False
    seed: int = 1000
    resamples: int = count(1000, "draws", most=1_000_000)
    encoder: str | None = None
    encoder_revision: str | None = None
    audit: str | None = "embedded:identities"
    audit_group: str = "group|domain|identity"
    audit_prompts: int = positive(500)
    audit_least: int = positive(10, "prompts")
    audit_texts: str | None = "embedded:identities"
    word_list: str | None = "embedded:mild"
    protocol: Protocol = Protocol.plain
    models: list[Any] = field(default_factory=list)
    prompts: int | None = positive(None)
    samples: int | None = count(None, "responses", most=10_000)
    new_tokens: int | None = count(None, "tokens", most=MOST_TOKENS)
    sets: dict[str, DataSettings] = field(default_factory=dict)
    strengths: list[float] = field(default_factory=list)


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

    every: int = not_negative(0, "iterations")
    every_minutes: float | None = positive(None, "minutes")
    keep: int = positive(2, "checkpoints")
    requeue: bool = False


@dataclass
class PlanSettings:
    """conf/plan: the machine that stage=plan plans for."""

    device: str | None = None
    memory_gib: float | None = positive(None, "GiB")
    query_tokens: int | None = count(None, "tokens", most=MOST_TOKENS)
    seconds: bool = True


@dataclass
class Settings:
    """Everything a run needs; see conf/config.yaml for the groups that fill it."""

    stage: Stage = Stage.detox
    seed: int = not_negative(0)
    device: str = "auto"
    threads: int | None = positive(None)
    resume: bool = False
    run_dir: str = MISSING
    run: str | None = None
    soup: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    task: TaskSettings = field(default_factory=TaskSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)
    data: DataSettings = field(default_factory=DataSettings)
    reward: ScorerSettings = field(default_factory=ScorerSettings)
    judge: ScorerSettings = field(default_factory=ScorerSettings)
    algorithm: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    sft: SftSettings = field(default_factory=SftSettings)
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    chat: ChatSettings = field(default_factory=ChatSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    debug: DebugSettings = field(default_factory=DebugSettings)
