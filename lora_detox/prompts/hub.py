"""Data sets that `datasets` loads: from the Hugging Face hub, or from a folder in its formats."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_detox.errors import DataError
from lora_detox.prompts.naming import LOCAL_ADVICE
from lora_detox.prompts.rows import FileRules, RawRow


def load_from_hub(path: str, config_name: str | None, revision: str | None) -> dict[str, Any]:
    """Download (or take from the cache) every split of a hub data set.

    Args:
        path: hub id, "owner/name" or "name".
        config_name: which configuration of the data set, None for its only one.
        revision: branch, tag or commit; None for the newest.

    Returns:
        Split name -> `datasets.Dataset`.

    Raises:
        DataError: if the hub or the data set cannot be reached, or it is a script.
    """
    _check_reachable(path, revision)
    return _load(path, config_name, revision, advice=LOCAL_ADVICE)


def is_saved_by_datasets(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))


def load_from_folder(folder: Path, config_name: str | None) -> dict[str, Any]:
    """Load a folder written by `save_to_disk`, or laid out for `load_dataset`.

    Args:
        folder: a folder that exists.
        config_name: which configuration, None for its only one.

    Returns:
        Split name -> `datasets.Dataset`.

    Raises:
        DataError: if `datasets` cannot read it.
    """
    import datasets  # noqa: PLC0415 - slow to import, and only these sources need it

    advice = "want a data set folder or a data file; change `data.path`"
    if not is_saved_by_datasets(folder):
        return _load(str(folder), config_name, None, advice=advice)
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(f"cannot read the saved data set {folder}: {error}; {advice}") from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def dataset_rows(dataset: Any, split: str, rules: FileRules) -> Iterator[RawRow]:
    """Rows of one split.

    Args:
        dataset: a `datasets.Dataset`.
        split: its name, for naming rows.
        rules: only the columns that are read are decoded, where the split has any of a field.

    Yields:
        Rows named "split:index".
    """
    names = dataset.column_names
    # With none of the wanted columns, all are kept: one of them may hold the wanted ones.
    kept = list(filter(rules.reads, names)) if any(map(rules.wants, names)) else names
    unread = [name for name in names if name not in kept]
    for index, row in enumerate(dataset.select_columns(kept)):
        yield RawRow(where=f"{split}:{index}", columns=row, unread=unread)


def _check_reachable(path: str, revision: str | None) -> None:
    """The hub has it, as data; offline `load_dataset` looks into the cache and fails at once."""
    from lora_detox.hub import HubError, hub_files  # noqa: PLC0415 - its client is slow to import

    try:
        files = hub_files(path, revision, "dataset") or []
    except HubError as error:
        if error.answered:  # missing, gated, private
            at_revision = f" at revision {revision}" if revision else ""
            raise DataError(
                f"the hub has no readable data set `{path}`{at_revision}: {error}; "
                f"change `data.path`, or {LOCAL_ADVICE}"
            ) from error
        raise DataError(
            f"cannot reach the Hugging Face hub for the data set `{path}` ({error}); "
            f"{LOCAL_ADVICE}; or set HF_HUB_OFFLINE=1 to use what the cache holds"
        ) from error
    if f"{path.rpartition('/')[2]}.py" in files and not any("parquet" in name for name in files):
        raise DataError(_script_message(path))


def _load(
    path: str, config_name: str | None, revision: str | None, *, advice: str
) -> dict[str, Any]:
    import datasets  # noqa: PLC0415 - slow to import, and only these sources need it

    try:
        loaded = datasets.load_dataset(path, name=config_name, revision=revision)
    except Exception as error:
        if "scripts are no longer supported" in str(error):
            raise DataError(_script_message(path)) from error
        raise DataError(f"cannot load the data set `{path}`: {_first_line(error)}; {advice}") from (
            error
        )
    return dict(loaded)


def _script_message(path: str) -> str:
    return (
        f"the data set `{path}` is a loading script, which `datasets` 4 and later refuse to run: "
        "want parquet, jsonl or csv; name a revision that has them with `data.revision` "
        f"(often `refs/convert/parquet`), or {LOCAL_ADVICE}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
