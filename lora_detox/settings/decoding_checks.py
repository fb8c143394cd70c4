"""What cannot work about a decoding, found before anything heavy is imported."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from lora_detox.choices import DecodingKind, QuantizationType, Stage
from lora_detox.errors import SettingsError
from lora_detox.ranges import check_ranges
from lora_detox.settings.decoding import READ_BY, DecodingSettings, entry_decoding
from lora_detox.settings.groups import Settings

ENTRY_KEY = "evaluation.models.decoding"


def check_decodings(settings: Settings) -> None:
    """Hold the decoding of the settings, and those of single models, to what they can be.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with the key to change.
    """
    own = settings.decoding
    if settings.stage is not Stage.evaluate:
        if own.name is not DecodingKind.plain:
            raise SettingsError(
                f"decoding: got {own.name.value}; training and the other stages draw tokens "
                "plainly, so want decoding=plain, or stage=evaluate"
            )
        return
    entries = list(_entry_decodings(settings))
    _check_unread(own, [own, *entries])
    _check_decoding(own, settings, "decoding")
    for entry in entries:
        check_ranges(entry, f"{ENTRY_KEY}.")
        _check_decoding(entry, settings, ENTRY_KEY)


def _entry_decodings(settings: Settings) -> Iterator[DecodingSettings]:
    for entry in settings.evaluation.models:
        if isinstance(entry, Mapping) and entry.get("decoding") is not None:
            yield entry_decoding(entry["decoding"], settings.decoding, ENTRY_KEY)


def _check_unread(own: DecodingSettings, used: list[DecodingSettings]) -> None:
    """A key that was given a value and that no decoding of the call reads."""
    read = {"name", *(key for one in used for key in READ_BY[one.name])}
    given, default = asdict(own), asdict(DecodingSettings())
    for key, value in given.items():
        if key not in read and value != default[key]:
            raise SettingsError(
                f"decoding.{key}: decoding={own.name.value} does not read it; leave it out"
            )


def _check_decoding(decoding: DecodingSettings, settings: Settings, key: str) -> None:
    """What a decoding needs is given and can be."""
    kind = decoding.name
    if kind is DecodingKind.best_of_n:
        _check_best_of_n(decoding, settings, key)
    elif kind is DecodingKind.bad_words:
        words = decoding.words
        if words is not None and not Path(words).expanduser().is_file():
            raise SettingsError(
                f"{key}.words: there is no file {words}; want a text file with one word a line, or "
                "null for the words of labelled texts"
            )
    elif kind is DecodingKind.civil_prefix:
        name = "chat_prefix" if settings.task.chat else "prefix"
        if not getattr(decoding, name).strip():
            raise SettingsError(f"{key}.{name}: got an empty text, want one line")
    elif kind is DecodingKind.anti_expert and not decoding.adapter:
        raise SettingsError(
            f"{key}.adapter: got {decoding.adapter}; want the folder of an adapter that stage=sft "
            "trained on toxic text, as in decoding.adapter=runs/DIR/adapter"
        )
    elif kind is DecodingKind.projection:
        _check_projection(decoding, settings, key)


def _check_best_of_n(decoding: DecodingSettings, settings: Settings, key: str) -> None:
    if decoding.n < 2:
        raise SettingsError(
            f"{key}.n: got {decoding.n}, want 2 or more; one response a prompt is decoding=plain"
        )
    if settings.evaluation.greedy:
        raise SettingsError(
            "evaluation.greedy: got true; best of n compares drawn responses, and the likeliest "
            "one is always the same, so want false"
        )


def _check_projection(decoding: DecodingSettings, settings: Settings, key: str) -> None:
    if not 0 < decoding.layer_fraction <= 1:
        raise SettingsError(
            f"{key}.layers: got {decoding.layers}, want last_half, or a fraction of the layers "
            "above 0, at most 1"
        )
    quantized = settings.quantization.type
    if quantized is not QuantizationType.none:
        raise SettingsError(
            f"quantization={quantized.value}: decoding projection changes the weights of the base, "
            "and quantized ones hold no such change; want quantization=none"
        )
