"""Where time and memory of a run went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_detox.report.memory import size
from lora_detox.report.wording import mean_of, number

_TEXTS = {
    "generate": "sampling responses",
    "reference": "logprobs, and those of the reference",
    "score": "scoring by the classifiers",
    "update": "learning",
    "evaluate": "evaluations and audits",
    "checkpoint": "checkpoints",
    "loading": "program, models and data",
    "other": "all else",
}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a whole.

    Attributes:
        name: of the phase.
        what: in words, may be empty.
        amount: as a person reads it.
        fraction: of the whole, 0 to 1.
    """

    name: str
    what: str
    amount: str
    fraction: float


def time_parts(summary: Mapping[str, Any]) -> list[Part]:
    """Seconds by phase, longest first; none without a total."""
    seconds = summary.get("seconds") or {}
    parts = {name: mean_of(value) or 0.0 for name, value in seconds.items() if name != "total"}
    return _parts(parts, mean_of(seconds.get("total")) or 0.0, duration)


def memory_parts(summary: Mapping[str, Any]) -> list[Part]:
    """By how much each phase raised the peak of memory, largest first; none where not known."""
    memory = summary.get("memory_growth_bytes") or {}
    parts = {name: mean_of(value) or 0.0 for name, value in memory.items()}
    return [one for one in _parts(parts, sum(parts.values()), size) if one.fraction > 0]


def memory_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The peak, and the weights in it as far as they are known."""
    parameters, facts = summary.get("parameters") or {}, []
    peak = mean_of(summary.get("peak_memory_bytes"))
    if peak is not None:
        facts.append(("peak memory", size(peak)))
    width = _BYTES.get(str(parameters.get("base_dtype")))
    total, trained = (mean_of(parameters.get(name)) for name in ("total", "trainable"))
    if total and trained and width and summary.get("quantization", "none") == "none":
        facts.append(("weights of the base", size((total - trained) * width)))
    if trained:
        # In 32 bits: weights, gradients and the two moments of AdamW.
        facts.append(("what learns, with gradients and moments", size(16 * trained)))
    return facts


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 100:
        return f"{number(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _parts(parts: Mapping[str, float], total: float, text: Any) -> list[Part]:
    if total <= 0:
        return []
    return [
        Part(name=name, what=_TEXTS.get(name, ""), amount=text(value), fraction=value / total)
        for name, value in sorted(parts.items(), key=lambda item: -item[1])
    ]
