"""The schema of the stages around reinforcement learning; `settings` puts it into the whole."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lora_detox.errors import SettingsError
from lora_detox.hub import is_hub_id


@dataclass
class ExportSettings:
    """conf/export: what is made of a finished run, and where it goes."""

    path: str | None = None
    base_model: str | None = None
    base_revision: str | None = None
    merge: bool = False
    repo_id: str | None = None
    revision: str | None = None
    private: bool = False
    dry_run: bool = False
    license: str | None = None
    commit_message: str = "Upload LoRA adapter"


class SftSchedule(StrEnum):
    """How the learning rate of stage=sft and stage=reward_model moves."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


@dataclass
class SftSettings:
    """conf/sft: supervised fine-tuning of the adapter."""

    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 1e-3
    schedule: SftSchedule = SftSchedule.linear
    warmup_steps: int = 10
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 16
    gradient_accumulation: int = 1
    max_response_tokens: int = 128
    log_every: int = 10


class ClassifierTraining(StrEnum):
    """Which weights of a classifier learn."""

    full = "full"
    lora = "lora"


@dataclass
class RewardModelSettings:
    """conf/reward_model: fine-tuning of a sequence classifier."""

    path: str = "embedded:reward"
    revision: str | None = None
    training: ClassifierTraining = ClassifierTraining.full
    rank: int = 8
    labels: list[str] = field(default_factory=lambda: ["nothate", "hate"])
    new_head: bool = False
    toxic_from: float = 0.5
    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 1e-4
    schedule: SftSchedule = SftSchedule.linear
    warmup_steps: int = 10
    weight_decay: float = 0.01
    batch_size: int = 32
    max_tokens: int = 128
    log_every: int = 10
    test_sets: dict[str, str] = field(default_factory=dict)
    identity_field: str = "identity|target"
    identity_least: int = 20


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
    if export.dry_run and export.repo_id is None:
        raise SettingsError("export.dry_run: shows a push, so want export.repo_id=user/name")
    for key, value in (("repo_id", export.repo_id), ("base_model", export.base_model)):
        is_id = value is None or is_hub_id(value, with_owner=True)
        if not is_id and not (key == "base_model" and "/" not in str(value)):
            raise SettingsError(f"export.{key}: got {value!r}, want a hub id as user/name")
    path = Path(export.path).expanduser() if export.path else folder / "export"
    if path.exists() and any(path.iterdir()) and not (path / "adapter_config.json").is_file():
        raise SettingsError(
            f"export.path: {path} holds something else than an earlier export; name another folder"
        )
    if export.repo_id and export.base_model is None:
        stored = json.loads((folder / "adapter/adapter_config.json").read_text(encoding="utf-8"))
        base = str(stored.get("base_model_name_or_path"))
        if Path(base).exists() or base.startswith((".", "/", "~")):
            raise SettingsError(
                f"export.base_model: the run was trained on the folder {Path(base).name}, which "
                "nobody else can load; to push its adapter name the base on the hub, as in "
                "export.base_model=google/flan-t5-base"
            )
