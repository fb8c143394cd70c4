"""Tables of Arrow: Parquet, Feather and the Arrow files of `datasets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
from pyarrow import feather, ipc, parquet

from lora_detox.prompts.rows import FileRules, RawRow, columns_of

_BATCH_ROWS = 1024
_FEATHER_1_MAGIC = b"FEA1"


def read_table(path: Path, rules: FileRules) -> Iterator[RawRow]:
    """Rows of a table of Arrow.

    Args:
        path: a file that exists; Parquet where its name ends so.
        rules: only the columns named there are decoded, where the file has any of them.

    Yields:
        Rows named "file:place".

    Raises:
        ValueError: the file is not what its name says.
    """
    read = _read_parquet if path.name.lower().endswith(".parquet") else _read_arrow
    try:
        yield from read(path, rules)
    except (pyarrow.ArrowException, SystemError) as error:  # the second where a schema is garbage
        raise ValueError(str(error)) from error


def _read_parquet(path: Path, rules: FileRules) -> Iterator[RawRow]:
    with parquet.ParquetFile(path) as file:
        yield from _rows(file.iter_batches(batch_size=_BATCH_ROWS), path, rules)


def _read_arrow(path: Path, rules: FileRules) -> Iterator[RawRow]:
    """As a stream (`datasets`) or with random access (Feather)."""
    with path.open("rb") as file_of_bytes:
        first_bytes = file_of_bytes.read(len(_FEATHER_1_MAGIC))
    with pyarrow.memory_map(str(path)) as source:
        if first_bytes == _FEATHER_1_MAGIC:
            yield from _rows(feather.read_table(path).to_batches(_BATCH_ROWS), path, rules)
            return
        try:
            with ipc.open_file(source) as file:
                places = range(file.num_record_batches)
                yield from _rows((file.get_batch(place) for place in places), path, rules)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            with ipc.open_stream(source) as stream:
                yield from _rows(stream, path, rules)


def _rows(batches: Any, path: Path, rules: FileRules) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        places = [place for place, name in enumerate(batch.schema.names) if rules.reads(name)]
        if not any(map(rules.wants, batch.schema.names)):
            places = list(range(batch.num_columns))  # one of them may hold the wanted ones
        all_names = [name.strip() for name in batch.schema.names]
        names = [all_names[place] for place in places]
        unread = [name for place, name in enumerate(all_names) if place not in places]
        for place in places:
            batch.column(place).validate(full=True)  # offsets of a broken file lead anywhere
        columns = [batch.column(place).to_pylist() for place in places]
        for values in zip(*columns, strict=True):
            number += 1
            yield RawRow(
                where=f"{path.name}:{number}", columns=columns_of(names, values), unread=unread
            )
