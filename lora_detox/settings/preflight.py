"""What settings need around them: installed packages, finished runs, a free folder for the run."""

import importlib.util
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lora_detox.choices import Interface, QuantizationType
from lora_detox.errors import SettingsError
from lora_detox.hub_ids import is_hub_id
from lora_detox.ownership import in_the_way, ownership
from lora_detox.run_lock import check_free, check_writable
from lora_detox.settings.groups import Settings
from lora_detox.settings.plain import flat, settings_yaml
from lora_detox.settings.stages import ChatSettings, ExportSettings
from lora_detox.settings.stored import stored_json, stored_settings

_SAME = ("task", "policy", "quantization", "data")
"""Groups that have to be the runs' own: else another base, or test prompts in training."""
_SAME_ADAPTER = ("adapter.type", "adapter.targets", "adapter.scope")
_WHOLE = "want a whole folder of a finished run"
TRACKERS = ("wandb", "trackio")


def check_packages(settings: Settings) -> None:
    """Packages that a machine may lack are installed, found out without importing them."""
    names = settings.tracker.names
    for name in names:
        if name not in {*TRACKERS, "tensorboard", "jsonl"}:
            raise SettingsError(
                f"tracker.names: got {name}, want {' or '.join(TRACKERS)} (metrics.jsonl and "
                "TensorBoard are always written)"
            )
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise SettingsError(
                f"tracker.names: the package {name} is not installed; "
                "pip install 'lora-detox[trackers]', or leave it out"
            )
    quantized = settings.quantization.type
    if quantized is not QuantizationType.none and not importlib.util.find_spec("bitsandbytes"):
        raise SettingsError(
            f"quantization={quantized.value}: the package bitsandbytes is not installed. It has "
            "wheels for Linux (x86_64, aarch64), Windows and macOS on arm64; this is "
            f"{platform.system()} on {platform.machine()}. There pip install bitsandbytes; "
            "elsewhere want quantization=none"
        )


def check_run_dir(settings: Settings) -> None:
    """A folder that holds a run is for going on with that run alone; no file is written over."""
    run_dir = Path(settings.run_dir)
    check_writable(run_dir)
    if not settings.resume:
        check_free(run_dir)


def check_finished(run: str, key: str) -> None:
    """A folder holds a finished run with an adapter.

    Args:
        run: the folder.
        key: of the settings that names it, for the message.

    Raises:
        SettingsError: what is missing.
    """
    folder = Path(run).expanduser()
    wanted = ("config.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors")
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise SettingsError(
            f"{key}: {run} has no {' and no '.join(missing)}; want the folder of a finished run of "
            "stage=detox or stage=sft"
        )
    if not (folder / "summary.json").is_file():
        raise SettingsError(
            f"{key}: {run} has no summary.json, so it did not finish; end it with resume=true first"
        )


def check_export(run: str | None, export: ExportSettings) -> None:
    """What stage=export needs is there, found out from files alone.

    Args:
        run: folder of a finished run.
        export: what is wanted of it.

    Raises:
        SettingsError: no such run, a run without adapter, or a name that is no repository.
    """
    if run is None:
        raise SettingsError("run: no value given; stage=export wants a finished run, as in run=DIR")
    folder = Path(run).expanduser()
    check_finished(run, "run")
    if export.strength == 0:
        raise SettingsError(
            "export.strength: got 0, which is the bare base; want another number, as in 0.8"
        )
    if export.dry_run and export.repo_id is None:
        raise SettingsError("export.dry_run: shows a push, so want export.repo_id=user/name")
    for key, value in (("repo_id", export.repo_id), ("base_model", export.base_model)):
        is_id = value is None or is_hub_id(value, with_owner=True)
        if not is_id and not (key == "base_model" and "/" not in str(value)):
            raise SettingsError(f"export.{key}: got {value!r}, want a hub id as user/name")
    if export.license is not None and not _LICENSE.fullmatch(export.license):
        raise SettingsError(
            f"export.license: got {export.license!r}, want an identifier of the hub, as in "
            "apache-2.0, mit or cc-by-nc-4.0"
        )
    if export.gguf and importlib.util.find_spec("gguf") is None:
        raise SettingsError(
            "export.gguf: the package gguf is not installed; pip install 'lora-detox[gguf]', or "
            "export.gguf=false"
        )
    _check_export_folder(folder, export)
    whole_package = export.space and not export.repo_id and _is_miniature(folder)
    if (export.repo_id or export.space) and export.base_model is None and not whole_package:
        stored = stored_json(folder / "adapter/adapter_config.json", "run", _WHOLE)
        base = str(stored.get("base_model_name_or_path"))
        if Path(base).exists() or base.startswith((".", "/", "~")):
            what = "push its adapter" if export.repo_id else "write a Space of it"
            raise SettingsError(
                f"export.base_model: the run was trained on the folder {Path(base).name}, which "
                f"nobody else can load; to {what} name the base on the hub, as in "
                "export.base_model=google/flan-t5-base"
            )


_LICENSE = re.compile(r"[a-z0-9]+([.+-][a-z0-9]+)*")


def _is_miniature(run: Path) -> bool:
    """Whether a run's base is a miniature of this package, which every installation has."""
    stored = stored_settings(run / "config.yaml", "run", _WHOLE)
    tiny = (stored.get("debug") or {}).get("tiny_model", False)
    return bool(stored["policy"].get("path") == "embedded:policy" and not tiny)


EXPORTED = (
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter.gguf",
    ".eval_results/",
    "merged/",
    "space/",
)
"""What stage=export writes, folders with a slash."""


def _check_export_folder(run: Path, export: ExportSettings) -> None:
    """What lies in the target belongs to an earlier export, or its owner has said to go on."""
    path = Path(export.path).expanduser() if export.path else run / "export"
    if path.exists() and not path.is_dir():
        raise SettingsError(f"export.path: {path} is a file; name a folder")
    parts = (run, run / "adapter", run / "checkpoints")
    if any(path.resolve() == one.resolve() for one in parts):
        raise SettingsError(
            f"export.path: {path} belongs to the run itself and holds something else than an "
            "export; name another folder"
        )
    others = ownership(path).others
    if others and not export.overwrite:
        shown = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
        raise SettingsError(
            f"export.path: {path} holds something else than an unchanged earlier export ({shown}); "
            "name another folder, or export.overwrite=true to replace the files that an export "
            f"writes ({', '.join(EXPORTED)}) and leave the rest"
        )
    if wrong := in_the_way(path, EXPORTED):
        raise SettingsError(
            f"export.path: {wrong} is a link or a folder where an export writes; move it away, or "
            "name another folder"
        )


def check_chat(chat: ChatSettings) -> None:
    """What stage=chat needs is there, found out from files alone.

    Args:
        chat: which runs, and where they are asked.

    Raises:
        SettingsError: no run, one without adapter or that did not finish, or no Gradio for the
            browser.
    """
    if not chat.runs:
        raise SettingsError(
            "chat.run: no value given; stage=chat wants a finished run, as in chat.run=DIR, or "
            "several, as in 'chat.run=[DIR,DIR]'"
        )
    for one in chat.runs:
        check_finished(one, "chat.run")
    if chat.interface is Interface.browser and importlib.util.find_spec("gradio") is None:
        raise SettingsError(
            "chat.interface: got browser, but the package gradio is not installed; pip install "
            "'lora-detox[chat]', or chat.interface=terminal"
        )


def check_soup(settings: Settings) -> None:
    """Find what cannot be averaged, from files alone.

    Args:
        settings: as composed.

    Raises:
        SettingsError: fewer than two runs, one that is not finished, or one of other settings.
    """
    folders = settings.soup
    if len(set(folders)) < 2:
        raise SettingsError(
            f"soup: got {len(set(folders))} run(s); want two or more finished runs that differ in "
            "their seed, as in 'soup=[runs/a,runs/b]'"
        )
    if settings.adapter.dora:
        raise SettingsError(
            "adapter.dora: magnitudes have no mean with a meaning; stage=soup wants adapter=lora "
            "or adapter=rslora"
        )
    if settings.policy.adapter is not None:
        raise SettingsError(
            f"policy.adapter: got {settings.policy.adapter}; stage=soup starts from the base, want "
            "null"
        )
    now = _compared(OmegaConf.to_container(OmegaConf.create(settings_yaml(settings))))
    defaults = _compared(OmegaConf.to_container(OmegaConf.create(settings_yaml(Settings()))))
    for folder in folders:
        check_finished(folder, "soup")
        stored = stored_settings(Path(folder).expanduser() / "config.yaml", "soup", _WHOLE)
        then = defaults | _compared(stored)  # a key that is younger than the run had its default
        changed = [
            f"{key}: was {then.get(key)}, now {now.get(key)}"
            for key in sorted(now.keys() | then.keys())
            if now.get(key) != then.get(key)
        ]
        if changed:
            raise SettingsError(
                f"soup: {folder} was trained with other settings ({'; '.join(changed)}); give "
                "those of the runs"
            )


def check_runs(runs: Sequence[str]) -> None:
    """Folders that stage=compare reads are named.

    Args:
        runs: as composed.

    Raises:
        SettingsError: none is named.
    """
    if not runs:
        raise SettingsError(
            "runs: got []; stage=compare wants folders of finished runs, as in "
            "'runs=[runs/a,runs/b]'"
        )


def _compared(config: object) -> dict[str, object]:
    """The keys that have to be the same, dotted."""
    values = flat(config)
    return {k: v for k, v in values.items() if k.split(".")[0] in _SAME or k in _SAME_ADAPTER}
