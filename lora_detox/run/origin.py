"""What a run was begun with: kept in each of its checkpoints, compared when it is resumed.

A run that goes on with other settings, rows, models or another start would mix two runs. Whatever
differs is named, and nothing is trained.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import lora_detox
from lora_detox.choices import Stage
from lora_detox.errors import DataError, SettingsError
from lora_detox.prompts import PromptRow, PromptSets
from lora_detox.prompts.sources import SPLITS
from lora_detox.report.console import print_line
from lora_detox.report.jsonl import MetricsLog, plain, write_text_atomic
from lora_detox.run.manifest import (
    RUN_PREFIX,
    newest_trainer_checkpoint,
    newest_whole,
    remove,
)
from lora_detox.settings import Settings, flat, renamed, settings_yaml
from lora_detox.settings.stored import stored_json, stored_settings
from lora_detox.types import Evaluation

RECORD, METRICS = "run.json", "metrics.jsonl"
"""Files of a checkpoint: what the run was begun with, and its rows so far."""
_FREE = ("resume", "threads", "device", "run_dir", "tracker", "checkpoint")
"""Keys that may differ when a run is resumed: they change no number of it."""
_RAISED = "algorithm.iterations"
"""May be more than before."""
_FREE_KEYS = ("reward.timeout", "judge.timeout")
_TEMPORARY = re.compile(r"\.[\w.-]+\.\d+\.tmp")
"""Names of files that `write_text_atomic` has not finished."""
_IN_A_SET = re.compile(r"^evaluation\.sets\.[^.]+\.")
"""Such a key is one of `data`, and has its default."""
_NAMED = 12
"""Most differences that a message names."""
_ELSEWHERE = "or name another hydra.run.dir to begin anew"


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What a run goes on from.

    Attributes:
        checkpoint: the newest whole one; None where the run begins.
        record: what that checkpoint says of the run's beginning; empty in one of an earlier
            version.
    """

    checkpoint: Path | None = None
    record: Mapping[str, Any]

    def start(self) -> Evaluation | None:
        """Test prompts answered by the policy as it started; None where that is not known."""
        return stored_evaluation(self.record.get("start") or {})

    def start_audit(self) -> Evaluation | None:
        """Audit prompts answered by the policy as it started; None where that is not known."""
        return stored_evaluation(self.record.get("start_audit") or {})

    def check(self, kind: str, now: Mapping[str, Any]) -> None:
        """What a run reads is what it read when it was begun.

        Args:
            kind: entry of the record: "data" or "parts".
            now: name of each to what it is now; only names that both know are compared.

        Raises:
            DataError: with each that differs, as it was and as it is.
        """
        then = self.record.get(kind) or {}
        differs = [name for name in now if name in then and then[name] != now[name]]
        if differs:
            changed = [f"{name}: was {then[name]}, now {now[name]}" for name in differs]
            what = "rows" if kind == "data" else "models"
            raise DataError(
                f"resume=true, but {self.checkpoint} was written with other {what} "
                f"({_named(changed)}); put those of then back, {_ELSEWHERE}"
            )


def stored_evaluation(stored: Mapping[str, Any]) -> Evaluation | None:
    """An evaluation out of a checkpoint; None where it is not there, or not whole."""
    known = {one.name for one in fields(Evaluation)}
    if not known - {"columns"} <= stored.keys():
        return None
    return Evaluation(**{name: value for name, value in stored.items() if name in known})


def find_resumed(settings: Settings) -> Resumed:
    """What a run goes on from, once its settings are found to be those that it was begun with.

    What a killed process left unfinished is swept. A checkpoint that is passed over is named with
    the reason, and so is that a run begins again.

    Args:
        settings: of now.

    Returns:
        The newest whole checkpoint and its record; neither where nothing is resumed.

    Raises:
        SettingsError: with each key that differs, its old and its new value; or a config.yaml that
            is not as the run wrote it.
    """
    if not settings.resume:
        return Resumed(record={})
    run_dir = Path(settings.run_dir)
    _sweep(run_dir)
    resumed = _newest(settings, run_dir / "checkpoints")
    _check_settings(settings, run_dir, resumed)
    if resumed.checkpoint is None:
        print_line(f"note     resume=true, but {run_dir} has no whole checkpoint: it begins from 0")
    return resumed


def _newest(settings: Settings, folder: Path) -> Resumed:
    if settings.stage in (Stage.sft, Stage.reward_model):
        newest = newest_trainer_checkpoint(folder)
        checkpoint = None if newest is None else newest[1]
    else:
        checkpoint, passed_over = newest_whole(folder, RUN_PREFIX)
        for line in passed_over:
            print_line(f"note     checkpoint passed over: {line}")
    if checkpoint is None or not (checkpoint / RECORD).is_file():
        return Resumed(checkpoint=checkpoint, record={})
    remedy = f"remove {checkpoint} to go on from the one before, {_ELSEWHERE}"
    return Resumed(checkpoint=checkpoint, record=stored_json(checkpoint / RECORD, "resume", remedy))


def _check_settings(settings: Settings, run_dir: Path, resumed: Resumed) -> None:
    now, file = flat(plain_settings(settings)), run_dir / "config.yaml"
    kept = resumed.record.get("settings")
    written: dict[str, object] | None = None
    if file.is_file():
        remedy = (
            "put the file back, " if kept is None else "remove it (the checkpoint has a copy), "
        )
        written = flat(stored_settings(file, "resume=true", f"{remedy}, {_ELSEWHERE}"))
        if moved := renamed(sorted(written)):
            raise SettingsError(
                f"resume=true, but {run_dir} was begun by an earlier version ({'; '.join(moved)}); "
                "begin it anew in another hydra.run.dir"
            )
    then = written if kept is None else flat(kept)
    if then is None:
        if resumed.checkpoint is not None:
            raise SettingsError(
                f"resume=true, but {run_dir} has lost its config.yaml, and its checkpoints were "
                f"written by a version that kept no copy; put the file back, {_ELSEWHERE}"
            )
        return
    _say_raised(then, now)
    if changed := changes(then, now):
        raise SettingsError(
            f"resume=true, but {run_dir} was begun with other settings ({_named(changed)}); "
            "give the same ones, none at all to go on with the run's own, or name another "
            "hydra.run.dir"
        )
    if written is not None and _RAISED in written:
        written[_RAISED] = now[_RAISED]  # a run that was made longer may have ended before it wrote
    if written is not None and (changed := changes(then, written)):
        raise SettingsError(
            f"resume=true, but {file} is not what {resumed.checkpoint} was written with "
            f"({_named(changed)}); remove the file (the checkpoint has a copy), {_ELSEWHERE}"
        )


def changes(then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Settings that differ between two runs, those left out that change no number.

    More iterations than before are no difference: the run goes on to them. A key that one of them
    does not know (it is of another version) has its default there.

    Args:
        then: dotted keys to values.
        now: the same of the later run.

    Returns:
        "KEY: was OLD, now NEW".
    """
    default = defaults()
    differ = []
    for key in sorted(then.keys() | now.keys()):
        if key.split(".")[0] in _FREE or key in _FREE_KEYS:
            continue
        unset = default.get(_IN_A_SET.sub("data.", key), MISSING)
        if key == _RAISED and _is_raised(then, now):
            continue
        if then.get(key, unset) != now.get(key, unset):
            old, new = (values.get(key, "unknown") for values in (then, now))
            differ.append(f"{key}: was {old}, now {new}")
    return differ


def _is_raised(then: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether a run is to go on beyond its end."""
    old, new = then.get(_RAISED), now.get(_RAISED)
    return isinstance(old, int) and isinstance(new, int) and new > old


def _say_raised(then: Mapping[str, object], now: Mapping[str, object]) -> None:
    if not _is_raised(then, now):
        return
    line = f"note     {_RAISED} was {then[_RAISED]}, now {now[_RAISED]}: the run goes on to it"
    if now.get("algorithm.schedule") != "constant":
        line += f"; algorithm.schedule={now.get('algorithm.schedule')} now ends there"
    print_line(line)


def _named(differ: list[str]) -> str:
    """What differs, as part of a sentence; the first few where there are many."""
    more = len(differ) - _NAMED
    return "; ".join([*differ[:_NAMED], *([f"and {more} more"] if more > 0 else [])])


def defaults(node: Any = Settings, prefix: str = "") -> dict[str, object]:
    """Every key that has a default in the schema, dotted, with it."""
    values: dict[str, object] = {}
    for entry in fields(node):
        nested, key = entry.type, f"{prefix}{entry.name}"
        if isinstance(nested, type) and is_dataclass(nested):
            values |= defaults(nested, f"{key}.")
        elif entry.default is not MISSING:
            values[key] = plain(entry.default)
        elif entry.default_factory is not MISSING:
            values[key] = plain(entry.default_factory())
    return values


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The settings as nested values that JSON can hold."""
    values: Any = OmegaConf.to_container(OmegaConf.create(settings_yaml(settings)))
    nested: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return nested


def begun_with(settings: Settings, **entries: Any) -> dict[str, Any]:
    """The record of a run's beginning.

    Args:
        settings: composed and checked.
        **entries: `data` and `parts` as `Resumed.check` compares them.

    Returns:
        What the checkpoints of the run hold; `start` is added once it is measured.
    """
    version = lora_detox.__version__
    return {"version": version, "settings": plain_settings(settings), **entries}


def rows_digest(rows: Iterable[object]) -> str:
    """How many rows there are, and a digest of them in their order.

    Args:
        rows: dataclasses, or values that `plain` accepts.

    Returns:
        "N rows (16 hexadecimal digits)".
    """
    digest, count = hashlib.blake2b(digest_size=8), 0
    for row in rows:
        values = vars(row) if is_dataclass(row) else row
        if isinstance(row, PromptRow):  # what is carried along changes no number
            values = {name: value for name, value in vars(row).items() if name != "columns"}
        digest.update(json.dumps(plain(values), sort_keys=True).encode() + b"\n")
        count += 1
    return f"{count} rows ({digest.hexdigest()})"


def rows_of(sets: PromptSets) -> dict[str, str]:
    """The rows of each split, as `Resumed.check` compares them."""
    return {split: rows_digest(getattr(sets, split)) for split in SPLITS}


def file_digest(path: Path) -> str:
    """A digest of a file's bytes, as 16 hexadecimal digits."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def checkpoint_files(record: Mapping[str, Any], log: MetricsLog) -> dict[str, bytes]:
    """What a checkpoint holds beside the weights, by name.

    Args:
        record: from `begun_with`.
        log: of the run; it is put on the disk.

    Returns:
        Content of each file.
    """
    log.sync()
    return {RECORD: json.dumps(plain(record)).encode(), METRICS: log.path.read_bytes()}


def restore_rows(resumed: Resumed, run_dir: Path) -> None:
    """Give a resumed run the rows of metrics.jsonl that its checkpoint has.

    Args:
        resumed: what it goes on from.
        run_dir: where its metrics.jsonl is, or was.
    """
    if resumed.checkpoint is None or not (resumed.checkpoint / METRICS).is_file():
        return
    kept, path = (resumed.checkpoint / METRICS).read_bytes(), run_dir / METRICS
    if not path.is_file() or not path.read_bytes().startswith(kept):
        name = resumed.checkpoint.name
        print_line(f"note     {path} is not as it was; its rows are taken from {name}")
    write_text_atomic(path, kept.decode("utf-8"))


def _sweep(run_dir: Path) -> None:
    """Remove what a killed process had not finished to write."""
    for folder in run_dir.glob(".part-*"):
        remove(folder)
    for path in run_dir.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink()
