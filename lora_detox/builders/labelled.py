"""Labelled texts for stage=reward_model: the three splits of `data`, and further test sets."""

import sys
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts import PromptRow, load_prompt_sets
from lora_detox.prompts.columns import ABSENT, FieldMap, field_map, look_up
from lora_detox.prompts.fields import read_source
from lora_detox.prompts.heads import check_path_head
from lora_detox.prompts.holding import held
from lora_detox.prompts.load import check_prompt_heads
from lora_detox.prompts.naming import naming
from lora_detox.prompts.rows import BadRowLog, FileRules, RawRow
from lora_detox.prompts.sources import SPLITS, open_sources
from lora_detox.prompts.values import is_missing
from lora_detox.report.console import print_line
from lora_detox.settings import DataSettings, Settings

_SOURCE = "source"
"""Column that names the corpus of a text."""


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Texts with their labels.

    Attributes:
        texts: what is classified.
        toxic: True where the label says so.
        identities: the identity that each text mentions, None where the data names none.
        dropped: rows without a text or a label.
        sources: the corpus of each text by its column `source`, None where the data names none;
            empty where that is not asked for.
    """

    texts: list[str]
    toxic: list[bool]
    identities: list[str | None]
    dropped: int = 0
    sources: list[str | None] = field(default_factory=list)


def labelled_splits(settings: Settings) -> dict[str, LabelledTexts]:
    """Train, validation and test of `data`, which share no text.

    Args:
        settings: `data` and `reward_model.toxic_from` are read.

    Returns:
        The three splits.

    Raises:
        DataError: no column of labels, or a split with one class alone.
    """
    data = settings.data
    _check_label_column(data)
    sets = load_prompt_sets(**_arguments(data), revision=data.revision, cache=data.cache)
    print_line(f"data     {data.path}: {sets.report.describe()}")
    splits = {name: _labelled(getattr(sets, name), settings) for name in SPLITS}
    if len(set(splits["train"].toxic)) < 2:
        raise DataError(
            f"stage=reward_model needs toxic and civil texts; all {len(splits['train'].toxic)} "
            "training rows have one label; change `data.fields.toxicity`, `data.path` or "
            "`reward_model.toxic_from`"
        )
    return splits


def test_set(name: str, path: str, settings: Settings) -> LabelledTexts:
    """A further labelled file, all of its rows.

    Args:
        name: of the set, for messages.
        path: a file, folder or hub id.
        settings: `data.fields`, `reward_model.identity_field` and `.toxic_from` are read.

    Returns:
        Its texts; duplicates stay.

    Raises:
        DataError: it is missing or has no usable row.
    """
    data, model = settings.data, settings.reward_model
    key, fields, files = f"reward_model.test_sets.{name}", _label_fields(data), _files(settings)
    sources = open_sources(path, rules=files, key=key)
    source = next(iter(reversed(sources.values())))
    log = BadRowLog(limit=sys.maxsize)
    with naming(key):
        rows = read_source(
            held(track(source.rows, f"reading {source.name}", source.count), files, source.name),
            fields,
            log,
            turns=data.turns,
            needs_toxicity=True,
        )
    usable = list(rows.rows)
    known = [(raw, row) for raw, row in usable if row.toxicity is not None]
    dropped = log.count + len(usable) - len(known)
    if not known:
        raise DataError(_no_labels(path, key, log))
    left_out = f"; {dropped} rows without text or label left out" if dropped else ""
    named = f" ({'; '.join(log.examples)})" if log.examples else ""
    print_line(f"test set {name}: {len(known)} texts{left_out}{named}")
    return LabelledTexts(
        texts=[row.prompt for _, row in known],
        toxic=[float(row.toxicity or 0.0) > model.toxic_from - 1e-9 for _, row in known],
        identities=[_identity(raw, model.identity_field) for raw, _ in known],
        dropped=dropped,
    )


def check_labelled_heads(settings: Settings) -> None:
    """Raise what the first rows of `data` and of the test sets show to be wrong.

    Args:
        settings: `data` and `reward_model` are read.

    Raises:
        DataError: as `labelled_splits` and `test_set` would raise it.
    """
    data = settings.data
    _check_label_column(data)
    check_prompt_heads(**_arguments(data))
    for name, path in settings.reward_model.test_sets.items():
        _check_test_head(path, f"reward_model.test_sets.{name}", settings)


def _check_test_head(path: str, key: str, settings: Settings) -> None:
    check_path_head(
        path,
        _label_fields(settings.data),
        _files(settings),
        key,
        wanted=lambda row: row.toxicity is not None,
        missing=lambda log, _: _no_labels(path, key, log),
        turns=settings.data.turns,
        needs_toxicity=True,
    )


def _no_labels(path: str, key: str, log: BadRowLog) -> str:
    why = f": {log.in_common()}" if log.in_common() else ""
    return f"{path} has no row with a text and a label{why}; change `{key}`"


def _arguments(data: DataSettings) -> dict[str, Any]:
    """What decides which texts are read."""
    columns = list(dict.fromkeys([*data.columns, _SOURCE]))
    given = asdict(replace(data, min_toxicity=None, max_toxicity=None, columns=columns))
    given["fields"]["references"] = None
    unused = ("query_tokens", "max_query_tokens", "split_seed", "revision", "cache")
    kept = {key: value for key, value in given.items() if key not in unused}
    return kept | {"seed": data.split_seed}


def _label_fields(data: DataSettings) -> FieldMap:
    return field_map({"prompt": data.fields.prompt, "toxicity": str(data.fields.toxicity)})


def _files(settings: Settings) -> FileRules:
    """How the files of test sets are read."""
    data, column = settings.data, settings.reward_model.identity_field
    wanted = {one for name in column.split("|") for one in (name, name.split(".")[0])}
    return FileRules(
        columns=frozenset(_label_fields(data).top_level_columns() | wanted),
        encoding=data.encoding,
        delimiter=data.delimiter,
        max_line_mb=data.max_line_mb,
        max_total_mb=data.max_total_mb,
    )


def _labelled(rows: list[PromptRow], settings: Settings) -> LabelledTexts:
    known = [row for row in rows if row.toxicity is not None]
    least = settings.reward_model.toxic_from - 1e-9
    return LabelledTexts(
        texts=[row.prompt for row in known],
        toxic=[float(row.toxicity or 0.0) > least for row in known],
        identities=[None] * len(known),
        dropped=len(rows) - len(known),
        sources=[row.columns.get(_SOURCE) for row in known],
    )


def _check_label_column(data: DataSettings) -> None:
    if not data.fields.toxicity:
        raise DataError(
            "stage=reward_model learns from labels; name their column with `data.fields.toxicity`, "
            "as in data.fields.toxicity=label"
        )


def _identity(raw: RawRow, column: str) -> str | None:
    """The first of several columns that names one."""
    values = (look_up(raw.columns, one) for one in column.split("|"))
    return next((str(one) for one in values if one is not ABSENT and not is_missing(one)), None)
