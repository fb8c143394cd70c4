"""The schema of conf/decoding, and which of its keys each decoding reads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_detox.choices import DecodingKind, StatePosition
from lora_detox.errors import SettingsError
from lora_detox.ranges import count, not_negative, positive, positive_fraction

_EXAMPLES = ("examples", "fields")
READ_BY: Mapping[DecodingKind, tuple[str, ...]] = {
    DecodingKind.plain: (),
    DecodingKind.bad_words: ("words", "size", "ratio", *_EXAMPLES),
    DecodingKind.civil_prefix: ("prefix", "chat_prefix"),
    DecodingKind.best_of_n: ("n",),
    DecodingKind.anti_expert: ("adapter", "alpha", "top_p"),
    DecodingKind.direction: ("strength", "position", "count", *_EXAMPLES),
    DecodingKind.projection: ("rank", "layers", "position", "count", *_EXAMPLES),
}
"""Keys of a decoding beside its name."""


@dataclass
class ExampleFieldSettings:
    """Columns of labelled texts or of pairs."""

    text: str = "text"
    label: str = "label"
    toxic: str = "toxic"
    neutral: str = "neutral"


@dataclass
class DecodingSettings:
    """conf/decoding: what is done while a model writes, without training."""

    name: DecodingKind = DecodingKind.plain
    words: str | None = None
    size: int = positive(200, "words")
    ratio: float = positive(2.0)
    examples: str = "embedded:labelled"
    fields: ExampleFieldSettings = field(default_factory=ExampleFieldSettings)
    prefix: str = (
        "The following text is friendly, polite and respectful, without insults or vulgar words."
    )
    chat_prefix: str = (
        "Be friendly, polite and respectful in your answer, without insults or vulgar words."
    )
    n: int = count(4, "responses", most=10_000)
    adapter: str | None = None
    alpha: float = positive(2.0)
    top_p: float | None = positive_fraction(0.9)
    strength: float = not_negative(1.0)
    position: StatePosition = StatePosition.last
    count: int = positive(500, "texts")
    rank: int = positive(4, "directions")
    layers: str = "last_half"

    @property
    def layer_fraction(self) -> float:
        """Fraction of the decoder layers that `layers` names; NaN where it names none."""
        try:
            return 0.5 if self.layers == "last_half" else float(self.layers)
        except ValueError:
            return float("nan")


def parameters(decoding: DecodingSettings) -> dict[str, Any]:
    """Name and keys that a decoding reads, as reports show them.

    Args:
        decoding: of one model.

    Returns:
        Plain data; the name alone for plain decoding.
    """
    values = asdict(decoding)
    return {"name": decoding.name.value} | {key: values[key] for key in READ_BY[decoding.name]}


def entry_decoding(entry: Any, group: DecodingSettings, key: str) -> DecodingSettings:
    """The decoding of an entry of `evaluation.models`.

    Args:
        entry: a mapping with `name` and keys that this decoding reads, or the name alone.
        group: what conf/decoding says; a key that the entry lacks is taken from there.
        key: of the settings, for messages.

    Returns:
        Typed settings, not yet checked for their ranges.

    Raises:
        SettingsError: no such decoding, a key that it does not read, or a value of another type.
    """
    given = {"name": entry} if isinstance(entry, str) else entry
    known = [one.value for one in DecodingKind]
    if not isinstance(given, Mapping) or str(given.get("name")) not in known:
        raise SettingsError(
            f"{key}: got {entry!r}, want a mapping with the name of a decoding "
            f"({', '.join(known)}), as in {{name: bad_words, size: 50}}"
        )
    kind = DecodingKind(str(given["name"]))
    for name in given:
        if name != "name" and name not in READ_BY[kind]:
            read = ", ".join(READ_BY[kind]) or "no key"
            raise SettingsError(f"{key}.{name}: decoding {kind.value} reads {read}; leave it out")
    try:
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(group), dict(given)))
    except OmegaConfBaseException as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"{key}: got {dict(given)!r}; {reason}") from error
    if not isinstance(merged, DecodingSettings):
        raise TypeError(f"{key} became a {type(merged).__name__}")
    return merged
