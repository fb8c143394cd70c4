"""The first rows of a source, by which a wrong column shows before anything slow is imported.

A head is read by the same code as the whole source, so that it raises the same errors. What it
cannot tell is left to the reading of the whole.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from lora_detox.errors import DataError
from lora_detox.prompts.columns import FieldMap, as_spelled, check_columns, field_map
from lora_detox.prompts.fields import stream_source
from lora_detox.prompts.files import data_suffix
from lora_detox.prompts.holding import bytes_of
from lora_detox.prompts.naming import naming
from lora_detox.prompts.rows import MIB, BadRow, BadRowLog, FileRules, PromptRow, RawRow, Rows
from lora_detox.prompts.sources import Source, open_sources

_MOST_ROWS = 50_000
_MOST_BYTES = 16 * MIB
_READ_AS_A_WHOLE = {".json": 8 * MIB, ".xlsx": MIB, ".xlsm": MIB}
"""Files that give no row before all of them is read, each with the largest that has a head."""
_KEYS_IN_EACH_ROW = (".jsonl", ".ndjson", ".json")


class HeadEndsError(Exception):
    """More is asked for than a head holds."""


class Head(Rows):
    """First rows of a source, each read once and kept.

    Args:
        source: opened, not read.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(self._kept_rows)
        self._reader = iter(source.rows)
        self._kept: list[RawRow | BadRow] = []
        self._bytes = 0

    def first(self) -> list[RawRow]:
        """The first row that is no bad one, of those that were read; empty where none is."""
        return [raw for raw in self._kept if isinstance(raw, RawRow)][:1]

    def _kept_rows(self) -> Iterator[RawRow | BadRow]:
        """The rows; HeadEndsError where the source has more than are kept."""
        place = 0
        while place < len(self._kept) or self._read_one():
            yield self._kept[place]
            place += 1

    def _read_one(self) -> bool:
        """Read one more row; False at the end of the source."""
        row = next(self._reader, None)
        if row is None:
            return False
        if len(self._kept) == _MOST_ROWS or self._bytes > _MOST_BYTES:
            raise HeadEndsError
        self._kept.append(row)
        self._bytes += bytes_of(row.columns) if isinstance(row, RawRow) else 0
        return True


def check_head(
    source: Source, fields: FieldMap, check: Callable[[Rows], object], *, needs_toxicity: bool
) -> None:
    """Raise what the first rows of a source show to be wrong.

    Args:
        source: opened, not read; a large file that can only be read as a whole is passed over.
        fields: which column is what.
        check: reads as many rows as it needs, and raises DataError.
        needs_toxicity: True if rows will be chosen by it, so that some row must have it.

    Raises:
        DataError: as of `check`; or a table of which the line of names lacks a column.
    """
    for path in source.files[:1]:
        if path.stat().st_size > _READ_AS_A_WHOLE.get(data_suffix(path) or "", float("inf")):
            return
    head = Head(source)
    try:
        check(head)
    except HeadEndsError:
        if _is_one_table(source):
            _check_names(head, fields, needs_toxicity)


def check_path_head(
    path: str,
    fields: FieldMap,
    rules: FileRules,
    key: str,
    wanted: Callable[[PromptRow], bool],
    missing: Callable[[BadRowLog, int], str],
    **reading: Any,
) -> None:
    """The same for the one source behind a path, of which all rows will be read.

    Args:
        path: as in `open_sources`; of several splits the last is read. Data of the hub is passed
            over.
        fields: which column is what.
        rules: how files are read.
        key: the setting that holds `path`.
        wanted: whether a row is of any use.
        missing: what to say where none is, by the bad rows and the number of the others.
        **reading: those of `stream_source`.

    Raises:
        DataError: a wrong column, or no row that is wanted.
    """

    def check(head: Rows) -> None:
        log = BadRowLog(limit=sys.maxsize)
        rows = stream_source(head, fields, log, **reading)
        others = 0
        for _, row in rows.rows:
            others += 1
            if wanted(row):
                return
        raise DataError(missing(log, others))

    sources = open_sources(
        path,
        rules=rules,
        key=key,
        files_only=True,
    )
    for source in list(sources.values())[-1:]:
        with naming(key):
            check_head(source, fields, check, needs_toxicity=bool(reading.get("needs_toxicity")))


def _is_one_table(source: Source) -> bool:
    """Whether every row has the columns of the first."""
    return len(source.files) == 1 and data_suffix(source.files[0]) not in _KEYS_IN_EACH_ROW


def _check_names(head: Head, fields: FieldMap, needs_toxicity: bool) -> None:
    """A column of a table is in its first row; what a dotted name leads to may come later."""
    plain = {name: None if "." in column else column for name, column in fields.named().items()}
    if plain["prompt"] and (first := head.first()):
        check_columns(first, as_spelled(first, field_map(plain)), needs_toxicity)
