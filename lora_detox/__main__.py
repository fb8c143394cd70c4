"""The command line: compose with Hydra, check, run the stage, return the sweep objectives.

Nothing heavy is imported before the composed settings have been checked.
"""

import os
import re
import sys
import tempfile
import traceback
from contextlib import redirect_stdout
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lora_detox import __version__
from lora_detox.choices import Stage, TrainerKind
from lora_detox.comparison.callback import end_sweeps, failed_job
from lora_detox.disk import disk_error
from lora_detox.errors import DetoxError, SettingsError
from lora_detox.processes import joined, processes
from lora_detox.run_lock import claimed_together
from lora_detox.settings import closest_keys, register_schema, renamed, settings_from
from lora_detox.settings.from_run import resumed_config
from lora_detox.settings.hints import (
    Arguments,
    missing_option,
    missing_plugin,
    read_arguments,
    refused,
)
from lora_detox.settings.mode import composed_once, is_multirun
from lora_detox.signals import Interrupted, how_to_go_on
from lora_detox.stages import run_stage
from lora_detox.visible import guard_standard_error, visible

_NO_ADVICE = "To append to your config use "
_JSON = "--json"
_finished: list[Path] = []
"""Folders of the runs of this process that ended well."""
_failed: list[Exception] = []
"""What ended a run, kept from Hydra, which would print all its overrides before the message."""
_LAUNCHERS = ("joblib", "submitit", "ray")
"""Packages whose errors come from processes of jobs."""
_NO_FILES = "\nConfig search path:"


def conf_dir() -> Path:
    """Where conf/ is: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def conf_groups() -> dict[str, list[str]]:
    """Groups of conf/, each with its options."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    groups = {path.name: sorted(one.stem for one in path.glob("*.yaml")) for path in folders}
    return {name: options for name, options in groups.items() if options}  # conf/hydra has groups


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def run(config: DictConfig) -> tuple[float, ...]:
    """Run one composed job; its objectives are (judge toxicity, -quality) where they apply."""
    try:
        return _run(config)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            # Hydra keeps the error while other jobs run, and its frames would keep the models.
            traceback.clear_frames(error.__traceback__)
            raise
        _failed.append(error)
        return ()


def _run(config: DictConfig) -> tuple[float, ...]:
    try:
        resume, fresh = bool(config.resume), _is_default_name(config)
        with claimed_together(Path(config.run_dir), fresh=fresh, resume=resume) as run_dir:
            config.run_dir = str(run_dir)
            if resume:
                config = resumed_config(config, list(HydraConfig.get().overrides.task))
            objectives = run_stage(settings_from(config))
            if processes().is_first:
                _finished.append(run_dir)
    except DetoxError:
        if processes().is_first:
            _remove_if_empty(Path(config.run_dir))
        raise
    except Interrupted as stop:
        overrides = list(HydraConfig.get().overrides.task)
        stop.where += f"; {_going_on(config, overrides)}"
        raise
    return objectives


def _is_default_name(config: DictConfig) -> bool:
    """Whether nobody named the folder of this run, so that it may get another name."""
    keys = {_key_of(one) for one in HydraConfig.get().overrides.hydra}
    named = keys & {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
    return not named and not config.resume


def main() -> int:
    """Console entry; a known error ends with one message and exit status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands errors on instead of printing them
    guard_standard_error()
    status = _without_a_run(sys.argv[1:])
    if status is not None:
        return status
    if _JSON not in sys.argv:
        return _job()
    sys.argv = [one for one in sys.argv if one != _JSON]
    if is_multirun(sys.argv[1:]):
        return _fail(f"{_JSON}: prints the summary of one run; want no --multirun")
    with redirect_stdout(sys.stderr):
        status = _job()
    if status == 0 and _finished:
        sys.stdout.write((_finished[-1] / "summary.json").read_text(encoding="utf-8"))
    return status


def _job() -> int:
    """Run what the command line asks for."""
    register_schema()
    try:
        return _status_of_run()
    finally:
        end_sweeps()  # of a multirun in which a job has failed: Hydra tells nobody of its end


def _status_of_run() -> int:
    """Run, and say what went wrong in one message where it is known."""
    try:
        _run_together()
    except Interrupted as stop:
        sys.stderr.write(visible(f"{stop}\n"))
        return stop.exit_code
    except KeyboardInterrupt:  # while a launcher waits for jobs in other processes
        return Interrupted("SIGINT").exit_code
    except DetoxError as error:
        message = str(error)
    except (HydraException, OmegaConfBaseException) as error:  # a missing option is an OSError too
        message = explain(error, sys.argv[1:])
    except OSError as error:
        if traceback.extract_tb(error.__traceback__)[-1].name != "mkdir":
            raise  # not the folder of the run, which Hydra makes
        message = str(disk_error(Path(str(error.filename)), error))
    except Exception as error:
        told = lost_job(error) or failed_job(error)
        if told is None:
            raise
        message = told
    else:
        return 0
    return _fail(message)


def _run_together() -> None:
    """Check what was typed and run it, as one of several processes where there are several."""
    with joined(command_line=True):
        if sentences := trapped(read_arguments(sys.argv[1:], conf_groups())):
            raise SettingsError("\n".join(sentences))
        if processes().size > 1:
            _as_one_of_many()
        _failed.clear()
        with composed_once(sys.argv[1:]):
            run()
        if _failed:
            raise _failed.pop()


def _as_one_of_many() -> None:
    """Where several processes are one run: no multirun, and one folder.

    Raises:
        SettingsError: a multirun, whose jobs every process would begin.
    """
    if is_multirun(sys.argv[1:]):
        raise SettingsError(
            f"--multirun with {processes().size} processes: each would begin every job of the "
            "sweep; want one process, and jobs that a launcher starts (docs/sweeping.md)"
        )
    if not processes().is_first:  # Hydra makes a folder; that of the run is the first one's
        sys.argv.append(f"hydra.run.dir={tempfile.gettempdir()}")


def _without_a_run(arguments: list[str]) -> int | None:
    """Answer `--version`, `--help` and `doctor`; None where a run is wanted."""
    if "--version" in arguments:
        sys.stdout.write(f"lora_detox {__version__}\n")
        return 0
    if {"--help", "-h"} & set(arguments):
        from lora_detox.help_page import help_text  # noqa: PLC0415 (a run has no use for it)

        sys.stdout.write(help_text(conf_dir(), arguments))
        return 0
    if arguments[:1] == ["doctor"]:
        from lora_detox.doctor import examination  # noqa: PLC0415 (imports PyTorch)

        sys.stdout.write(visible("".join(f"{line}\n" for line in examination())))
        return 0
    return None


def lost_job(error: Exception) -> str | None:
    """What to say of a launcher whose job ended without an answer; None for another error."""
    launcher = type(error).__module__.partition(".")[0]
    if launcher not in _LAUNCHERS:
        return None
    first = (str(error).strip().splitlines() or [""])[0]
    return (
        f"a job of the sweep was lost with its process, as when memory runs out ({launcher}: "
        f"{first}); sweep.html has those that have ended, and stage=compare runs=[FOLDER] writes "
        "it again"
    )


def _going_on(config: DictConfig, overrides: list[str]) -> str:
    """How to go on with a job that a signal has ended."""
    resumable = config.stage in (Stage.detox, Stage.sft, Stage.reward_model)
    if not resumable or config.algorithm.trainer.kind is not TrainerKind.native:
        return "it keeps no checkpoints: begin it anew in another hydra.run.dir"
    typed = Path(sys.argv[0]).name
    program = ["python", "-m", "lora_detox"] if typed == "__main__.py" else [typed]
    return f"go on with: {how_to_go_on(program, overrides, config.run_dir)}"


def _fail(message: str) -> int:
    sys.stderr.write(visible(f"error: {message}\n"))
    return 2


def trapped(arguments: Arguments) -> list[str]:
    """What Hydra would trip over, and the way to type it; old keys are left to `explain`."""
    moved = renamed(map(_key_of, arguments.overrides))
    return [] if moved else refused(arguments, conf_groups())


def explain(error: Exception, overrides: list[str]) -> str:
    """Where renamed keys went; else Hydra's message, its cause and what a mistyped key meant."""
    keys = list(map(_key_of, overrides))
    in_files = re.findall(r"full_key: (\S+)", f"{error} {error.__cause__}")
    if moved := renamed(dict.fromkeys([*keys, *in_files])):
        return "\n".join(moved)
    # The schema is closed, so that Hydra's advice to append an unknown key leads nowhere.
    message = str(error).strip().split(_NO_FILES)[0]
    lines = [one for one in message.splitlines() if not one.startswith(_NO_ADVICE)]
    parts = ["\n".join(lines)]
    if error.__cause__ is not None and str(error.__cause__).strip() not in parts[0]:
        parts.append(str(error.__cause__).strip())
    groups = conf_groups()
    stage = next((one.removeprefix("stage=") for one in overrides if one.startswith("stage=")), "")
    for key in keys:
        names = sorted(groups)
        if key in "".join(parts) and (close := closest_keys(key, names)) and key not in close:
            close.sort(key=lambda one: not one.startswith(f"{stage}."))  # the stage's own first
            parts.append(f"{key}: did you mean {', '.join(close)}?")
    parts += [*missing_option(overrides, message, groups), *missing_plugin(message)]
    return "\n".join(parts)


def _key_of(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
