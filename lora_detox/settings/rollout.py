"""The schema of conf/rollout."""

from dataclasses import dataclass

from lora_detox.choices import RolloutEngine
from lora_detox.ranges import between, count, positive


@dataclass
class RolloutSettings:
    """conf/rollout: who samples the responses of training."""

    engine: RolloutEngine = RolloutEngine.local
    url: str = "http://127.0.0.1:8000"
    adapters: str | None = None
    requests: int = count(64, "requests", most=4096)
    timeout: float = positive(600.0, "seconds")
    most_gap: float = positive(0.1, "nats")
    most_ratio: float = between(2.0, 1, 100)
