"""Runs from Python: the same composition as the command line, the summary as a result."""

from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lora_detox.__main__ import conf_dir, explain, trapped
from lora_detox.errors import SettingsError
from lora_detox.json_text import parse_json
from lora_detox.processes import joined
from lora_detox.run_lock import claimed_together
from lora_detox.settings import Settings, register_schema, settings_from
from lora_detox.settings.from_run import resumed_config
from lora_detox.settings.hints import Arguments
from lora_detox.stages import run_stage


def compose_settings(overrides: list[str], run_dir: str | Path | None = None) -> Settings:
    """Compose conf/ with overrides as the command line does, and check the result.

    Args:
        overrides: as on the command line, such as ["task=flan_summary", "seed=1"].
        run_dir: where the run is written; None for runs/TASK/TIME.

    Returns:
        Checked settings.

    Raises:
        SettingsError: an unknown key, or a value or combination that cannot work.
    """
    return settings_from(_composed(overrides, run_dir))


def _composed(overrides: list[str], run_dir: str | Path | None) -> DictConfig:
    register_schema()
    if sentences := trapped(Arguments(overrides)):
        raise SettingsError("\n".join(sentences))
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            config = compose(config_name="config", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(explain(error, overrides)) from error
    time = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    with open_dict(config):
        config.run_dir = str(run_dir or Path("runs") / config.task.name / time)
    OmegaConf.resolve(config)
    return config


def run(overrides: list[str], run_dir: str | Path | None = None) -> dict[str, Any]:
    """Run a stage and return its summary.json.

    Where a launcher has started several processes, each calls this and they are one run.

    Args:
        overrides: as on the command line.
        run_dir: where the run is written; None for runs/TASK/TIME, with -2, -3, ... at its end
            where that is taken.

    Returns:
        The summary.

    Raises:
        DetoxError: whatever the command line would report.
    """
    with joined() as us:
        config = _composed(overrides, run_dir)
        resume = bool(config.resume)
        fresh = run_dir is None and not resume
        with claimed_together(Path(config.run_dir), fresh=fresh, resume=resume) as place:
            config.run_dir = str(place)
            if resume:
                config = resumed_config(config, overrides)
            run_stage(settings_from(config))
            text = us.first(lambda: (place / "summary.json").read_text(encoding="utf-8"))
    summary: dict[str, Any] = parse_json(text)
    return summary
