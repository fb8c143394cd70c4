"""What training may cost, and when it has collapsed: conf/budget and conf/guard."""

from dataclasses import dataclass, field

from lora_detox.choices import Diversity, Ship
from lora_detox.limits import CollapseLimits
from lora_detox.ranges import change, count, fraction, not_negative, positive


@dataclass
class ControllerSettings:
    """budget.controller: how the multipliers follow what is outside."""

    margin: float = fraction(0.0)
    gain: float = positive(0.1)
    damping: float = not_negative(25.0)
    smoothing: float = fraction(0.3)
    start_rollouts: int = count(3, "rollouts", least=0, most=1000)
    distinct_2_gain: float = positive(1.0)
    distinct_2_pays: Diversity = Diversity.entropy
    relevance_gain: float = positive(0.3)
    multipliers: dict[str, float] = field(default_factory=dict)


@dataclass
class BudgetSettings:
    """conf/budget: what less toxicity may cost."""

    name: str = "off"
    perplexity: float | None = change(None)
    rouge_l: float | None = fraction(None)
    distinct_2: float | None = fraction(None)
    relevance: float | None = fraction(None)
    similarity: float | None = fraction(None)
    symbols: float | None = fraction(None, "of a response's characters")
    length: float | None = positive(None, "as a fraction of the start's")
    length_most: float | None = positive(None, "as a fraction of the start's")
    kl: float | None = positive(None, "nats per response")
    words: list[float | None] | None = None
    target: float | None = fraction(None)
    patience: int | None = positive(None, "evaluations")
    ship: Ship = Ship.best
    fallback: list[float] = field(default_factory=list)
    extrapolation: list[float] = field(default_factory=list)
    controller: ControllerSettings = field(default_factory=ControllerSettings)

    def strengths(self) -> dict[str, list[float]]:
        """At which strengths the end of training is tried, by the case."""
        return {"fallback": self.fallback, "extrapolation": self.extrapolation}


@dataclass
class GuardSettings(CollapseLimits):
    """conf/guard: what counts as collapse, and what happens then."""

    name: str = "off"
    enabled: bool = False
    retries: int = not_negative(3)
