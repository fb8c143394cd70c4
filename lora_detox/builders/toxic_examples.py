"""Toxic and civil texts that a decoding learns its words or directions from."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts import PromptRow
from lora_detox.prompts.columns import ABSENT, FieldMap, field_map, look_up
from lora_detox.prompts.fields import read_source, stream_source
from lora_detox.prompts.heads import check_head
from lora_detox.prompts.holding import held
from lora_detox.prompts.naming import naming
from lora_detox.prompts.rows import BadRow, BadRowLog, FileRules, RawRow, Rows
from lora_detox.prompts.sources import open_sources
from lora_detox.settings.decoding import ExampleFieldSettings

Item = TypeVar("Item")
_BAD_ROWS = 100
_TOXIC_FROM = 0.5


@dataclass(frozen=True, kw_only=True)
class ToxicExamples:
    """Texts of both kinds.

    Attributes:
        toxic: at least one text.
        civil: at least one text.
        paired: whether the two lists are equally long and each civil text says the same as the
            toxic one at its place.
    """

    toxic: list[str]
    civil: list[str]
    paired: bool

    def sample(self, count: int) -> "ToxicExamples":
        """At most `count` texts of each kind, the same ones each time; pairs stay together."""
        if self.paired:
            pairs = list(zip(self.toxic, self.civil, strict=True))
            chosen = _sample(pairs, count)
            toxic, civil = [one for one, _ in chosen], [one for _, one in chosen]
        else:
            toxic, civil = _sample(self.toxic, count), _sample(self.civil, count)
        return ToxicExamples(toxic=toxic, civil=civil, paired=self.paired)


def read_examples(path: str, fields: ExampleFieldSettings, key: str) -> ToxicExamples:
    """Labelled texts, or pairs of a toxic text and a civil one, of a file, folder or hub id.

    Args:
        path: as `data.path`; of several splits the training one is read.
        fields: columns; a source with both columns of pairs is read as pairs.
        key: of the decoding in the settings, for messages.

    Returns:
        The texts of its usable rows.

    Raises:
        DataError: nothing is there, the columns are missing, or one kind of text is.
    """
    with naming(f"{key}.examples"):
        place = Path(path).expanduser()
        changed = place.stat().st_mtime_ns if place.is_file() else 0
    with _own_keys(key):
        return _read(path, changed, astuple(fields), f"{key}.examples")


def check_example_heads(path: str, fields: ExampleFieldSettings, key: str) -> None:
    """Raise what the first rows of `read_examples` show to be wrong.

    Args:
        path: as in `read_examples`.
        fields: columns.
        key: of the decoding in the settings.

    Raises:
        DataError: as `read_examples` would raise it.
    """
    rules = _rules(fields)

    def check(head: Rows) -> None:
        if not _has_pairs(head, fields):
            log = BadRowLog(limit=_BAD_ROWS)
            rows = stream_source(head, _labelled(fields), log, needs_toxicity=True)
            if next(iter(rows.rows), None) is None:
                raise DataError(_one_kind(path, 0, 0, f"{key}.examples"))

    with _own_keys(key):
        sources = open_sources(
            path,
            rules=rules,
            key=f"{key}.examples",
            files_only=True,
        )
        for source in list(sources.values())[:1]:
            check_head(source, _labelled(fields), check, needs_toxicity=True)


@contextmanager
def _own_keys(key: str) -> Iterator[None]:
    """Messages that name the settings of a decoding instead of those of data."""
    try:
        yield
    except DataError as error:
        message = str(error)
        for column, own in (("prompt", "text"), ("toxicity", "label"), ("references", "neutral")):
            message = message.replace(f"data.fields.{column}", f"{key}.fields.{own}")
        raise DataError(message.replace("data.path", f"{key}.examples")) from error


def _labelled(fields: ExampleFieldSettings) -> FieldMap:
    return FieldMap(prompt=fields.text, toxicity=fields.label)


def _rules(fields: ExampleFieldSettings) -> FileRules:
    """Every column that may be read."""
    alternatives = [one for name in astuple(fields) for one in name.split("|")]
    return FileRules(
        columns=frozenset({*alternatives, *(one.split(".")[0] for one in alternatives)})
    )


@lru_cache(maxsize=1)
def _read(path: str, _changed: int, names: tuple[str, ...], key: str) -> ToxicExamples:
    """Read once for the decodings of a call; again where the file has changed."""
    fields = ExampleFieldSettings(*names)
    rules = _rules(fields)
    sources = open_sources(path, rules=rules, key=key)
    source = next(iter(sources.values()))
    reading = track(source.rows, f"reading {source.name}", source.count)
    raw_rows = held(reading, rules, source.name)
    if _has_pairs(raw_rows, fields):
        pairs = _rows(raw_rows, field_map({"prompt": fields.toxic, "references": fields.neutral}))
        whole = [row for row in pairs if row.references]
        toxic, civil = [row.prompt for row in whole], [row.references[0] for row in whole]
    else:
        labelled = _rows(raw_rows, _labelled(fields))
        known = [(row.prompt, row.toxicity) for row in labelled if row.toxicity is not None]
        toxic = [text for text, label in known if label >= _TOXIC_FROM]
        civil = [text for text, label in known if label < _TOXIC_FROM]
    if not toxic or not civil:
        raise DataError(_one_kind(path, len(toxic), len(civil), key))
    return ToxicExamples(toxic=toxic, civil=civil, paired=_has_pairs(raw_rows, fields))


def _one_kind(path: str, toxic: int, civil: int, key: str) -> str:
    return (
        f"{path} has {toxic} toxic and {civil} civil texts; a decoding compares the two kinds, so "
        f"want both; change `{key}`"
    )


def _has_pairs(raw_rows: Iterable[RawRow | BadRow], fields: ExampleFieldSettings) -> bool:
    """Whether some row has both columns of a pair."""
    columns = (raw.columns for raw in raw_rows if isinstance(raw, RawRow))
    return any(
        look_up(one, fields.toxic) is not ABSENT and look_up(one, fields.neutral) is not ABSENT
        for one in columns
    )


def _rows(raw_rows: Sequence[RawRow | BadRow], fields: FieldMap) -> list[PromptRow]:
    rows = read_source(
        raw_rows,
        fields,
        BadRowLog(limit=_BAD_ROWS),
        turns=Turns.auto,
        needs_toxicity=fields.toxicity is not None,
    )
    return [row for _, row in rows.rows]


def _sample(items: list[Item], count: int) -> list[Item]:
    return items if len(items) <= count else random.Random(0).sample(items, count)
