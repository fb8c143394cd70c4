"""Which models stage=evaluate is asked about, found out before any weight loads."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_detox.builders.policy import adapter_path, backbone_plan, model_path
from lora_detox.errors import SettingsError
from lora_detox.evaluation.decoded import decoded_name
from lora_detox.hub_ids import is_hub_id
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.settings import DecodingSettings, Settings, entry_decoding
from lora_detox.settings.stored import stored_json

_KEYS = ("path", "revision", "adapter", "name", "decoding")
_KEY = "evaluation.models"


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One row of the table.

    Attributes:
        name: what the table calls it.
        path: folder or hub id of the base, or `embedded:policy`.
        revision: hub revision of the base.
        adapter: folder or hub id of the adapter; None for the bare model.
        decoding: how it writes.
    """

    name: str
    path: str
    revision: str | None = None
    adapter: str | None = None
    decoding: DecodingSettings = field(default_factory=DecodingSettings)

    def backbone(self, settings: Settings) -> BackbonePlan:
        """How to load it: dtype, quantization and device are those of the settings."""
        path = model_path(self.path, settings)
        changes: dict[str, Any] = {
            "revision": self.revision,
            "adapter": self.adapter,
            "frozen_reference": False,
        }
        if self.path != settings.policy.path:  # whoever trusts one folder has not named the others
            changes["trust_remote_code"] = False
        return BackbonePlan(**{**vars(backbone_plan(settings, path)), **changes})


@contextmanager
def named_by_models(model: EvaluatedModel, settings: Settings) -> Iterator[None]:
    """Within this context what is wrong with a model is said of the key that named it.

    Args:
        model: that is looked at.
        settings: where `evaluation.models` is empty, the keys of `policy` named it.

    Yields:
        Nothing.

    Raises:
        SettingsError: the same, of `evaluation.models` and the entry.
    """
    try:
        yield
    except SettingsError as error:
        if not settings.evaluation.models:
            raise
        text = re.sub(r"^policy\.(path|adapter|revision)[:=] ?", "", str(error))
        text = text.replace("policy.path=/path/to/folder", f"'{_KEY}=[/path/to/folder]'")
        raise SettingsError(f"{_KEY}: {model.name}: {text}") from error


def evaluated_models(settings: Settings) -> list[EvaluatedModel]:
    """The models of `evaluation.models`, or the policy of the settings where there are none.

    Args:
        settings: composed and checked.

    Returns:
        At least one, with names that differ.

    Raises:
        SettingsError: an entry that names nothing that is there.
    """
    policy = settings.policy
    entries: list[Any] = settings.evaluation.models or [
        {"path": policy.path, "revision": policy.revision, "adapter": policy.adapter}
    ]
    models = [_decoded(entry, settings) for entry in entries]
    seen: dict[str, int] = {}
    unique = []
    for model in models:
        seen[model.name] = seen.get(model.name, 0) + 1
        again = f" ({seen[model.name]})" if seen[model.name] > 1 else ""
        unique.append(replace(model, name=model.name + again))
    return unique


def _decoded(entry: Any, settings: Settings) -> EvaluatedModel:
    """A model with how it writes; a name of its own stays as it is."""
    model, decoding = _model(entry, settings), settings.decoding
    given = entry if isinstance(entry, Mapping) else {}
    if given.get("decoding") is not None:
        decoding = entry_decoding(given["decoding"], decoding, f"{_KEY}.decoding")
    name = model.name if given.get("name") else decoded_name(model.name, decoding)
    return replace(model, name=name, decoding=decoding)


def _model(entry: Any, settings: Settings) -> EvaluatedModel:
    if isinstance(entry, str):
        return _from_text(entry)
    if not isinstance(entry, Mapping) or set(entry) - set(_KEYS):
        raise SettingsError(
            f"{_KEY}: got {entry!r}, want a folder, a hub id, or a mapping of "
            f"{', '.join(_KEYS)}, as in '{_KEY}=[{{path: BASE, adapter: DIR}}]'"
        )
    path, adapter = entry.get("path"), adapter_path(entry.get("adapter"), settings)
    stored = _from_adapter(Path(adapter).expanduser()) if adapter and not path else None
    if path is None:
        path = stored.path if stored else settings.policy.path
    name = entry.get("name") or Path(adapter or path).name
    revision = entry.get("revision") or (stored.revision if stored else None)
    if adapter and (Path(adapter).expanduser() / "adapter" / "adapter_config.json").is_file():
        adapter = str(Path(adapter) / "adapter")
    return EvaluatedModel(name=str(name), path=path, revision=revision, adapter=adapter)


def _from_text(text: str) -> EvaluatedModel:
    folder = Path(text).expanduser()
    if text.startswith("embedded:"):
        return EvaluatedModel(name=text, path=text)
    if folder.is_dir() and (model := _from_adapter(folder)):
        return model
    if (folder / "config.json").is_file():
        return EvaluatedModel(name=folder.resolve().name, path=text)
    path, at, revision = text.partition("@")
    if folder.exists() or not is_hub_id(path) or (at and not revision):
        raise SettingsError(
            f"{_KEY}: {text} is no model folder (config.json), no adapter folder "
            "(adapter_config.json) and no run folder (adapter/); want one of them, or a hub id"
        )
    return EvaluatedModel(name=text, path=path, revision=revision or None)


def _from_adapter(folder: Path) -> EvaluatedModel | None:
    """The model of an adapter folder or of a run's folder; the base is as PEFT wrote it down."""
    if (folder / "adapter" / "adapter_config.json").is_file():
        name, folder = folder.resolve().name, folder / "adapter"
    elif (folder / "adapter_config.json").is_file():
        resolved = folder.resolve()
        name = resolved.parent.name if resolved.name == "adapter" else resolved.name
    else:
        return None
    config = stored_json(folder / "adapter_config.json", _KEY, "want the folder of an adapter")
    base = config.get("base_model_name_or_path")
    if not base:
        raise SettingsError(
            f"{_KEY}: {folder} does not say which base it was trained on; give it as "
            f"{{path: BASE, adapter: {folder}}}"
        )
    return EvaluatedModel(
        name=name, path=base, revision=config.get("revision"), adapter=str(folder)
    )
