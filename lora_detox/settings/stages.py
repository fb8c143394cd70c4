"""The schema of the stages around reinforcement learning; `settings` puts it into the whole."""

from dataclasses import dataclass, field
from typing import Any

from lora_detox.choices import ClassifierTraining, Dtype, Interface, Schedule
from lora_detox.ranges import (
    MOST_TOKENS,
    between,
    count,
    fraction,
    not_negative,
    positive,
    positive_fraction,
    strength,
)

MOST_CHAT_STRENGTH = 1.5
"""Where the slider of stage=chat ends."""
MOST_CHAT_SAMPLES = 16
"""Answers of a model to one prompt of stage=chat, at most."""
MOST_CHAT_TOKENS = 2048
"""Tokens of an answer of stage=chat, at most."""
MOST_CHAT_TEMPERATURE = 5.0
"""Beyond it every token is about as likely as any other."""


@dataclass
class ExportSettings:
    """conf/export: what is made of a finished run, and where it goes."""

    path: str | None = None
    overwrite: bool = False
    base_model: str | None = None
    base_revision: str | None = None
    merge: bool = False
    gguf: bool = False
    strength: float = strength(1.0)
    repo_id: str | None = None
    revision: str | None = None
    private: bool = False
    dry_run: bool = False
    space: bool = False
    license: str | None = None
    commit_message: str = "Upload LoRA adapter"


@dataclass
class ChatSettings:
    """conf/chat: finished runs to try out, and what the first prompt is asked with."""

    run: Any = None
    interface: Interface = Interface.auto
    port: int | None = between(None, 1, 65535)
    strength: float = between(1.0, 0, MOST_CHAT_STRENGTH)
    samples: int = count(1, "answers", most=MOST_CHAT_SAMPLES)
    new_tokens: int | None = count(None, "tokens", most=MOST_CHAT_TOKENS)
    temperature: float | None = between(None, 0, MOST_CHAT_TEMPERATURE)
    top_p: float | None = positive_fraction(None)
    top_k: int | None = not_negative(None)

    @property
    def runs(self) -> list[str]:
        """Folders of the runs; `run` is one of them or a list."""
        given = self.run if isinstance(self.run, list) else [self.run]
        return [str(one) for one in given if one is not None]


@dataclass
class SftSettings:
    """conf/sft: supervised fine-tuning of the adapter."""

    epochs: float = positive(1.0)
    max_steps: int | None = positive(None, "optimizer steps")
    learning_rate: float = positive(1e-3)
    schedule: Schedule = Schedule.linear
    warmup_steps: int = not_negative(10, "optimizer steps")
    weight_decay: float = not_negative(0.0)
    max_grad_norm: float = positive(1.0)
    batch_size: int = positive(16)
    gradient_accumulation: int = positive(1)
    group_by_length: bool = False
    max_response_tokens: int = count(128, "tokens", most=MOST_TOKENS)
    log_every: int = positive(10, "optimizer steps")


@dataclass
class RewardModelSettings:
    """conf/reward_model: fine-tuning of a sequence classifier."""

    path: str = "embedded:reward"
    revision: str | None = None
    training: ClassifierTraining = ClassifierTraining.full
    rank: int = positive(8)
    frozen_layers: int | None = not_negative(None, "layers")
    dtype: Dtype = Dtype.float32
    group_by_length: bool = False
    labels: list[str] = field(default_factory=lambda: ["nothate", "hate"])
    new_head: bool = False
    civil_index: int = fraction(0)
    toxic_from: float = fraction(0.5)
    epochs: float = positive(1.0)
    max_steps: int | None = positive(None, "optimizer steps")
    learning_rate: float = positive(1e-4)
    schedule: Schedule = Schedule.linear
    warmup_steps: int = not_negative(10, "optimizer steps")
    weight_decay: float = not_negative(0.01)
    batch_size: int = positive(32)
    max_tokens: int = positive(128, "tokens")
    log_every: int = positive(10, "optimizer steps")
    test_sets: dict[str, str] = field(default_factory=dict)
    identity_field: str = "identity|target"
    identity_least: int = positive(20, "texts")
