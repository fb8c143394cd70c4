"""Where rows come from: the embedded corpus, a local file or folder, or a hub data set."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lora_detox.embedded import corpus
from lora_detox.embedded.labelled import labelled_rows
from lora_detox.embedded.rewrites import rewrite_rows
from lora_detox.errors import DataError
from lora_detox.hub_ids import is_hub_id
from lora_detox.prompts.files import (
    KINDS_OF_FILES,
    SPLIT_WORDS,
    data_files,
    data_suffix,
    document_files,
    files_by_split,
    read_documents,
    read_file,
)
from lora_detox.prompts.hub import (
    dataset_rows,
    is_saved_by_datasets,
    load_from_folder,
    load_from_hub,
)
from lora_detox.prompts.naming import DATA_PATH, naming
from lora_detox.prompts.rows import BadRow, FileRules, RawRow, Rows

SPLITS = ("train", "validation", "test")
EMBEDDED_PREFIX = "embedded:"
_LABELLED_ROWS = {"train": 4000, "validation": 400, "test": 800}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of one split, read when they are asked for.

    Attributes:
        name: what they are called while they are read.
        rows: in the order of the source; read again each time that they are iterated over.
        files: that hold them; none where they are generated.
        count: how many there are, None where only reading tells.
    """

    name: str
    rows: Iterable[RawRow | BadRow]
    files: tuple[Path, ...] = ()
    count: int | None = None


def open_sources(
    path: str,
    *,
    rules: FileRules,
    config_name: str | None = None,
    revision: str | None = None,
    split_names: tuple[str, str, str] = SPLITS,
    key: str = DATA_PATH,
    files_only: bool = False,
) -> dict[str, Source]:
    """Find the rows behind a path; what is missing fails here, before rows are read.

    Args:
        path: `embedded:dialogues`, `embedded:comments`, a file, a folder or a hub id.
        rules: how files are read.
        config_name: configuration of a hub data set.
        revision: revision of a hub data set.
        split_names: what the source calls train, validation and test.
        key: the setting that holds `path`, for messages.
        files_only: leave out what `datasets` would load, which is slow to import.

    Returns:
        Rows by split. One split alone, whatever its name, comes as "train". Empty where they are
        left out.

    Raises:
        DataError: if there is nothing readable behind the path.
    """
    with naming(key):
        sources = _file_sources(path, config_name, rules, key)
        if sources is None:
            sources = {} if files_only else _loaded(path, config_name, revision, split_names, rules)
    return {split: _named(source, key) for split, source in sources.items()}


def _named(source: Source, key: str) -> Source:
    """The source, whose rows are read later, with errors that name the setting."""

    def rows() -> Iterator[RawRow | BadRow]:
        with naming(key):
            yield from source.rows

    return source if key == DATA_PATH else replace(source, rows=Rows(rows))


def _file_sources(
    path: str, config_name: str | None, rules: FileRules, key: str
) -> dict[str, Source] | None:
    """Rows that are read or drawn here; None where `datasets` has to load them."""
    if path.startswith(EMBEDDED_PREFIX):
        return _embedded_sources(path, key)
    place = Path(path).expanduser()
    if place.is_file():
        return {"train": _open_file(place, rules, key)}
    if place.is_dir():
        return _folder_sources(place, config_name, rules)
    if _looks_local(path):
        raise DataError(
            f"no such file or folder: {path}; want {KINDS_OF_FILES}, a folder of them, or a hub id "
            f"owner/name; change `{key}`"
        )
    return None


def _loaded(
    path: str,
    config_name: str | None,
    revision: str | None,
    split_names: tuple[str, str, str],
    rules: FileRules,
) -> dict[str, Source]:
    """What `datasets` loads from a folder in one of its formats, or from the hub."""
    place = Path(path).expanduser()
    if place.is_dir():
        return _dataset_sources(
            str(place), load_from_folder(place, config_name), split_names, rules
        )
    datasets = load_from_hub(path, config_name, revision)
    return _dataset_sources(path, datasets, split_names, rules)


def open_split(
    path: str,
    split: str,
    *,
    split_names: tuple[str, str, str],
    rules: FileRules,
    files_only: bool = False,
) -> dict[str, Source]:
    """Rows of a source that was named for one split (`data.validation_path`, `data.test_path`).

    Args:
        path: as in `open_sources`.
        split: "validation" or "test".
        split_names: what the source calls train, validation and test.
        rules: how files are read.
        files_only: as in `open_sources`.

    Returns:
        By the split, the source's own split of that name, or all of it where it has only one.

    Raises:
        DataError: if it is missing, or has several splits and none of that name.
    """
    key = f"data.{split}_path"
    sources = open_sources(
        path,
        split_names=split_names,
        rules=rules,
        key=key,
        files_only=files_only,
    )
    if split not in sources and len(sources) > 1:
        raise DataError(f"{path} has the splits {', '.join(sources)}, want {split}; change `{key}`")
    own = sources.get(split) or next(iter(sources.values()), None)
    return {} if own is None else {split: own}


def _looks_local(path: str) -> bool:
    has_data_suffix = data_suffix(Path(path)) is not None
    return has_data_suffix or path.startswith("~") or not is_hub_id(path)


def _open_file(path: Path, rules: FileRules, key: str) -> Source:
    if data_suffix(path) is None:
        raise DataError(
            f"{path} is no kind of data file that can be read; want {KINDS_OF_FILES}; "
            f"change `{key}`"
        )
    return _file_source([path], rules)


def _file_source(files: list[Path], rules: FileRules, *, are_documents: bool = False) -> Source:
    name = files[0].name if len(files) == 1 else f"{len(files)} files of {files[0].parent.name}"
    read = read_documents if are_documents else _chain
    return Source(name=name, rows=Rows(lambda: read(files, rules)), files=tuple(files))


def _embedded_sources(path: str, key: str) -> dict[str, Source]:
    name = path.removeprefix(EMBEDDED_PREFIX)
    if name not in _EMBEDDED_READERS:
        known = ", ".join(EMBEDDED_PREFIX + one for one in _EMBEDDED_READERS)
        raise DataError(f"no embedded data set `{path}`; want {known}; change `{key}`")
    return {
        split: Source(name=path, rows=_embedded_rows(path, split, _drawn_rows(name, split)))
        for split in SPLITS
    }


def _labelled_rows(split: str) -> list[dict[str, Any]]:
    """Texts of the half that the embedded reward was not trained on."""
    return labelled_rows(split, 1, _LABELLED_ROWS[split])


_EMBEDDED_READERS: Mapping[str, Callable[[str], list[dict[str, Any]]]] = {
    "dialogues": corpus.dialogue_rows,
    "comments": corpus.comment_rows,
    "rewrites": rewrite_rows,
    "labelled": _labelled_rows,
}


@cache
def _drawn_rows(name: str, split: str) -> tuple[Mapping[str, Any], ...]:
    """Rows of an embedded set: drawn once, though the jobs of a sweep ask for them again."""
    return tuple(_EMBEDDED_READERS[name](split))


def _embedded_rows(path: str, split: str, rows: Iterable[Mapping[str, Any]]) -> Iterable[RawRow]:
    return Rows(
        lambda: (
            RawRow(where=f"{path}:{split}:{number}", columns=columns)
            for number, columns in enumerate(rows)
        )
    )


def _folder_sources(
    folder: Path, config_name: str | None, rules: FileRules
) -> dict[str, Source] | None:
    """Rows of a folder of files; None where it is laid out for `datasets`."""
    if config_name is not None or is_saved_by_datasets(folder):
        return None
    by_split = files_by_split(folder)
    documents = {} if by_split else document_files(folder)
    files = data_files(folder)
    if not by_split and not documents and files and not (folder / "README.md").exists():
        by_split = {"train": files}  # as `datasets` would, without its copy
    if not by_split and not documents:
        return None
    return _only_one_is_train(
        {
            split: _file_source(files, rules, are_documents=bool(documents))
            for split, files in (by_split or documents).items()
        }
    )


def _chain(files: list[Path], rules: FileRules) -> Iterator[RawRow | BadRow]:
    for path in files:
        yield from read_file(path, rules)


def _dataset_sources(
    path: str,
    datasets: Mapping[str, Any],
    split_names: tuple[str, str, str],
    rules: FileRules,
) -> dict[str, Source]:
    chosen: dict[str, str] = {}
    for split, name in zip(SPLITS, split_names, strict=True):
        names = (name, *SPLIT_WORDS[split]) if name == split else (name,)
        match = next((one for one in names if one in datasets), None)
        if match is not None:
            chosen[split] = match
    if not chosen and len(datasets) == 1:
        chosen["train"] = next(iter(datasets))
    if not chosen:
        raise DataError(
            f"the data set `{path}` has the splits {', '.join(datasets)}, "
            f"want {', '.join(split_names)}; change `data.split_names`"
        )
    return _only_one_is_train(
        {
            split: _dataset_source(path, datasets[name], name, rules)
            for split, name in chosen.items()
        }
    )


def _dataset_source(path: str, dataset: Any, split: str, rules: FileRules) -> Source:
    return Source(
        name=f"{Path(path).name} {split}",
        rows=Rows(lambda: dataset_rows(dataset, split, rules)),
        # Arrow files of `datasets`' own cache, or of a saved data set.
        files=tuple(Path(one["filename"]) for one in dataset.cache_files),
        count=len(dataset),
    )


def _only_one_is_train(sources: dict[str, Source]) -> dict[str, Source]:
    """A lone test or validation set is a source like any other, to be split by fractions."""
    return {"train": next(iter(sources.values()))} if len(sources) == 1 else sources
