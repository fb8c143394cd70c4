"""What to change when a run does not fit, cheapest first, each change predicted again."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_detox.choices import Dtype, QuantizationType
from lora_detox.memory.predict import Prediction
from lora_detox.settings import AdapterSettings, Settings

Override = tuple[str, Any]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A change and what it leads to.

    Attributes:
        overrides: as on the command line.
        cost: in speed or quality, in words.
        total: predicted peak with it, bytes.
        fits: whether that is what is available.
    """

    overrides: list[str]
    cost: str
    total: int
    fits: bool


def advise(
    settings: Settings, predicted: Callable[[Settings], Prediction], available: int
) -> list[Advice]:
    """Each change alone, then those that help together until the run fits.

    Args:
        settings: of the run that does not fit.
        predicted: predicts a run.
        available: bytes.

    Returns:
        Advice in the order of its cost; the last may combine several changes.
    """
    before = predicted(settings).total
    advice: list[Advice] = []
    helpful: list[tuple[list[Override], str]] = []
    for overrides, cost in candidates(settings):
        total = predicted(changed(settings, overrides)).total
        if total < before:
            advice.append(_advice(overrides, cost, total, available))
            helpful.append((overrides, cost))
        if total <= available:
            return advice
    together: dict[str, Any] = {}
    for overrides, _ in helpful:
        together |= dict(overrides)
        total = predicted(changed(settings, list(together.items()))).total
        if total <= available:
            break
    if len(helpful) > 1:
        advice.append(_advice(list(together.items()), "all of these together", total, available))
    return advice


def candidates(settings: Settings) -> list[tuple[list[Override], str]]:
    """Changes to try, cheapest first: (overrides, cost in words)."""
    algorithm, generation, evaluation = settings.algorithm, settings.generation, settings.evaluation
    tries: list[tuple[list[Override], str]] = []
    for size in _smaller(algorithm.microbatch_size):
        cost = "the same result, slower where the device is not full"
        tries.append(([("algorithm.microbatch_size", size)], cost))
    small = max(1, min(generation.batch_size, evaluation.batch_size) // 4)
    sizes: list[Override] = [
        ("generation.batch_size", small),
        ("evaluation.batch_size", small),
        ("reward.batch_size", max(1, settings.reward.batch_size // 4)),
        ("judge.batch_size", max(1, settings.judge.batch_size // 4)),
    ]
    tries.append((sizes, "the same result, slower generation and scoring"))
    if not settings.policy.gradient_checkpointing:
        tries.append(
            ([("policy.gradient_checkpointing", True)], "the same result, a slower update")
        )
    quantized = settings.quantization.type is not QuantizationType.none
    if not quantized and settings.policy.dtype in (Dtype.auto, Dtype.float32):
        tries.append(([("policy.dtype", Dtype.bfloat16)], "16-bit rounding of the frozen weights"))
    if settings.adapter.scope == AdapterSettings().scope:
        tries.append(([("adapter.scope", "last_4")], "only the last 4 layers learn"))
    if settings.quantization.type is QuantizationType.none:
        tries.append(
            ([("quantization.type", QuantizationType.int8)], "8-bit rounding, slower on a CPU")
        )
    if settings.quantization.type is not QuantizationType.nf4:
        tries.append(
            ([("quantization.type", QuantizationType.nf4)], "4-bit rounding, slower on a CPU")
        )
    return tries


def changed(settings: Settings, overrides: list[Override]) -> Settings:
    """A copy of the settings with some values replaced."""
    new = copy.deepcopy(settings)
    for key, value in overrides:
        *path, last = key.split(".")
        node: Any = new
        for name in path:
            node = getattr(node, name)
        setattr(node, last, value)
    return new


def _smaller(size: int) -> list[int]:
    """A quarter of the microbatch, and single rows; both divide it."""
    quarter = next((n for n in range(size // 4, 0, -1) if size % n == 0), 1)
    return sorted({quarter, 1} - {size}, reverse=True)


def _advice(overrides: list[Override], cost: str, total: int, available: int) -> Advice:
    return Advice(
        overrides=[_written(key, value) for key, value in overrides],
        cost=cost,
        total=total,
        fits=total <= available,
    )


def _written(key: str, value: Any) -> str:
    text = str(getattr(value, "value", value))
    text = text.lower() if isinstance(value, bool) else text
    return f"{key.removesuffix('.type')}={text}"
