"""What stage=export reads of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_detox.settings.stored import stored_json, stored_settings


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run directory.

    Attributes:
        folder: where it is.
        config: its resolved settings.
        summary: its figures.
        adapter_config: PEFT's description of the adapter.
    """

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    adapter_config: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The adapter's folder."""
        return self.folder / "adapter"

    @property
    def base(self) -> str:
        """Folder or hub id of the base as it was loaded."""
        return str(self.adapter_config["base_model_name_or_path"])

    @property
    def encoder_decoder(self) -> bool:
        """Whether the base has an encoder."""
        return self.adapter_config.get("task_type") == "SEQ_2_SEQ_LM"

    @property
    def quantization(self) -> str:
        """How the base was stored in training."""
        return str(self.config["quantization"]["type"])


def read_run(folder: Path) -> FinishedRun:
    """Read a run directory.

    Args:
        folder: checked by `settings.check_export`.

    Returns:
        Its settings, figures and adapter description.

    Raises:
        SettingsError: a file that cannot be read.
    """
    remedy = "want a whole folder of a finished run"
    config = stored_settings(folder / "config.yaml", "run", remedy)
    summary = stored_json(folder / "summary.json", "run", remedy)
    adapter_config = stored_json(folder / "adapter" / "adapter_config.json", "run", remedy)
    return FinishedRun(folder=folder, config=config, summary=summary, adapter_config=adapter_config)
