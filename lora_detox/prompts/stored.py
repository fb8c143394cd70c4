"""Prompt sets as a table of the cache, and back."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]

from lora_detox.cache import cache_folder, file_marks, read_table, table_key, write_table
from lora_detox.prompts.rows import LoadReport, PromptRow, PromptSets
from lora_detox.prompts.sources import SPLITS, Source

_KIND = "prompts"
_REPORT = b"report"
_SCHEMA = pyarrow.schema(
    [
        ("split", pyarrow.string()),
        ("row_id", pyarrow.string()),
        ("prompt", pyarrow.string()),
        ("references", pyarrow.list_(pyarrow.string())),
        ("toxicity", pyarrow.float64()),
        ("columns", pyarrow.string()),  # as JSON: rows differ in what they have
    ]
)


def sets_key(sources: Mapping[str, Source], rules: Mapping[str, Any]) -> str | None:
    """Name of the sets that these sources and rules give.

    Args:
        sources: opened, not read.
        rules: plain values that decide what becomes of the rows.

    Returns:
        Digest of files, rules and the code that reads; None where rows are generated.
    """
    if not all(source.files for source in sources.values()):
        return None
    files = {split: file_marks(source.files) for split, source in sources.items()}
    return table_key(code=_code_digest(), files=files, rules=rules)


def read_sets(key: str) -> PromptSets | None:
    """Sets out of the cache; None where they are not there or not whole."""
    table = read_table(_KIND, key)
    if table is None:
        return None
    try:
        report = LoadReport(**json.loads(table.schema.metadata[_REPORT]))
        rows: dict[str, list[PromptRow]] = {split: [] for split in SPLITS}
        for row in table.to_pylist():
            columns = json.loads(row.pop("columns"))
            rows[row.pop("split")].append(PromptRow(**row, columns=columns))
    except (TypeError, KeyError, ValueError):
        return None
    report = replace(report, bad_examples=tuple(report.bad_examples), kept_in=str(cache_folder()))
    return PromptSets(
        train=rows["train"], validation=rows["validation"], test=rows["test"], report=report
    )


def write_sets(key: str, sets: PromptSets) -> None:
    """Keep sets for the next run, if they can be kept."""
    rows = [
        {"split": split, **vars(row), "columns": json.dumps(row.columns)}
        for split in SPLITS
        for row in getattr(sets, split)
    ]
    metadata = {_REPORT: json.dumps(asdict(sets.report)).encode("ascii")}
    try:
        table = pyarrow.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(metadata))
    except (pyarrow.ArrowException, UnicodeEncodeError):
        return  # a row's name that is no Unicode, for one
    write_table(_KIND, key, table)


@functools.cache
def _code_digest() -> str:
    """Digest of this package's sources: what another version read is read again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
