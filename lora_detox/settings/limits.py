"""What training may cost, and when it has collapsed: conf/budget and conf/guard."""

from dataclasses import dataclass, field

from lora_detox.settings.choices import BudgetResult


@dataclass
class BudgetSettings:
    """conf/budget: what less toxicity may cost."""

    name: str = "off"
    perplexity: float | None = None
    rouge_l: float | None = None
    distinct_2: float | None = None
    length: float | None = None
    kl: float | None = None
    aim: float = 1.0
    gain: float = 0.1
    damping: float = 25.0
    distinct_2_gain: float = 1.0
    start_rollouts: int = 3
    smoothing: float = 0.3
    target: float | None = None
    patience: int | None = None
    interpolate: list[float] = field(default_factory=list)
    result: BudgetResult = BudgetResult.best


@dataclass
class GuardSettings:
    """conf/guard: what counts as collapse, and what happens then."""

    name: str = "off"
    enabled: bool = False
    retries: int = 3
    kl: float | None = None
    ratio: float | None = None
    entropy: float | None = None
    entropy_rise: float | None = None
    perplexity: float | None = None
    length: float | None = None
    distinct_2: float | None = None
    repetition: float | None = None
    reward_rise: float | None = None
    judge_fall: float = 0.1
