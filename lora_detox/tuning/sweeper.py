"""A study as a sweeper of Hydra: `python -m lora_detox -m hydra/sweeper=optuna ...`.

Trials are jobs of a multirun, so that every launcher runs them and sweep.html shows them. A trial
that fails or is pruned is told to the study, and the next one begins. The same command goes on with
a study that was ended.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lora_detox.choices import Stage, TrainerKind, TrialPrompts
from lora_detox.errors import DetoxError, PrunedError, SettingsError
from lora_detox.run_lock import claimed
from lora_detox.signals import Interrupted
from lora_detox.tuning.options import StudyOptions, study_options
from lora_detox.tuning.space import Space, read_space

_WITH_OBJECTIVES = (Stage.detox, Stage.sft, Stage.soup, Stage.evaluate)
_KILLED = "its process ended without an answer, or one beside it did"


class StudySweeper(Sweeper):
    """See the module.

    Args:
        **options: see `StudyOptions`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._given = options
        self._context: HydraContext | None = None
        self._launcher: Launcher | None = None
        self._error: BaseException | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives before a sweep."""
        self._context, self.config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that the study still wants.

        Args:
            arguments: overrides of the command line.

        Raises:
            DetoxError: what cannot work, before any job starts; or no trial came to its end.
            Interrupted: a signal has come; the study is kept.
        """
        context, config = self._context, self.config
        if context is None or config is None:
            raise RuntimeError("Hydra calls setup before sweep")
        given = {key: _plain(value) for key, value in self._given.items()}
        options = study_options(given)
        parser = OverridesParser.create(config_loader=context.config_loader)
        space = read_space(parser.parse_overrides(arguments))
        for overrides in space.probes():
            self._check_job(overrides, options)
        folder = Path(str(config.hydra.sweep.dir))
        with claimed(folder, resume=True), _kept(folder):
            self._run(folder, options, space)

    def _run(self, folder: Path, options: StudyOptions, space: Space) -> None:
        from lora_detox.report.console import print_line  # noqa: PLC0415 (imports Rich)
        from lora_detox.tuning.study import StudyRecord, batches  # noqa: PLC0415 (reports)

        study = StudyRecord(folder, options, space)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        going_on = study.begin()
        if not going_on and study.missing() < 1:
            print_line(
                f"study    {folder} has its {options.trials} trials; raise hydra.sweeper.trials"
            )
        for one in going_on:
            self._launch([one], study, options)
            _write(folder, study, options)
        while (missing := study.missing()) > 0:
            for batch in batches(study.choose(min(options.at_once, missing))):
                self._launch(batch, study, options)
            _write(folder, study, options)
        rows = _write(folder, study, options)
        print_line(f"study    {_counts(rows)}")
        if not any(row["state"] == "complete" for row in rows) and self._error is not None:
            raise self._error

    def _launch(self, batch: Sequence[Any], study: Any, options: StudyOptions) -> None:
        """Run trials and tell the study what each came to."""
        if self._launcher is None:
            raise RuntimeError("Hydra calls setup before sweep")
        overrides = [list(one.overrides) for one in batch]
        try:
            results = self._launcher.launch(overrides, initial_job_idx=batch[0].number)
        except Exception as error:  # noqa: BLE001 (of any launcher: a killed process, a lost node)
            self._error = error
            first = str(error).strip().splitlines() or [""]
            for one in batch:
                words = f"{_KILLED} ({type(error).__name__}: {first[0]})"
                study.fail(one.number, words, again=True)
            return
        for one, result in zip(batch, results, strict=True):
            self._tell(one.number, result, study, options)

    def _tell(self, number: int, result: JobReturn, study: Any, options: StudyOptions) -> None:
        error = result._return_value if result.status is not JobStatus.COMPLETED else None
        if isinstance(error, PrunedError):
            study.prune(number, str(error))
            return
        if error is None:
            try:
                point, facts = _outcome(result, options)
            except DetoxError as unread:
                error = unread
            else:
                study.complete(number, point, facts)
                return
        self._error = error if isinstance(error, BaseException) else None
        study.fail(number, f"{type(error).__name__}: {error}")

    def _check_job(self, overrides: list[str], options: StudyOptions) -> None:
        """Compose a job and check its settings, without running it."""
        from lora_detox.settings import settings_from  # noqa: PLC0415
        from lora_detox.settings.files import check_files  # noqa: PLC0415

        if self._context is None or self.config is None:
            raise RuntimeError("Hydra calls setup before sweep")
        try:
            config = self._context.config_loader.load_sweep_config(self.config, overrides)
            before = HydraConfig.instance().cfg
            HydraConfig.instance().set_config(config)
            try:
                with open_dict(config):
                    config.run_dir = str(config.hydra.sweep.dir)
                    del config["hydra"]
                settings = settings_from(config)
            finally:
                HydraConfig.instance().cfg = before
            check_files(settings)
        except (DetoxError, HydraException, OmegaConfBaseException) as error:
            tried = " ".join(overrides)
            raise SettingsError(f"{error} (of the study's values, tried: {tried})") from error
        on_validation = options.measured_on is TrialPrompts.validation
        wants = (Stage.detox,) if on_validation else _WITH_OBJECTIVES
        native = settings.algorithm.trainer.kind is TrainerKind.native
        if settings.stage not in wants:
            raise SettingsError(
                f"hydra/sweeper=optuna: stage={settings.stage} has no objectives on "
                f"{options.measured_on} prompts; want stage={', '.join(wants)}"
            )
        if on_validation and not native:
            raise SettingsError(
                f"hydra.sweeper.measured_on: algorithm={settings.algorithm.name} does not measure "
                "its result on validation prompts; want hydra.sweeper.measured_on=test"
            )


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """A signal ends the study; say how to go on with it."""
    try:
        yield
    except KeyboardInterrupt as error:  # not always ours: a launcher may wait for other processes
        stop = error if isinstance(error, Interrupted) else Interrupted("SIGINT")
        stop.where = (
            f"; the study is kept in {folder}: type its command again with hydra.sweep.dir={folder}"
        )
        raise stop from None


def _outcome(result: JobReturn, options: StudyOptions) -> tuple[tuple[float, float], Any]:
    """Objectives of a finished trial, and what else is kept of it."""
    from lora_detox.comparison.objectives import objectives  # noqa: PLC0415
    from lora_detox.metrics import names  # noqa: PLC0415
    from lora_detox.report.wording import means_of  # noqa: PLC0415
    from lora_detox.settings.stored import stored_json  # noqa: PLC0415

    folder = Path(str(result.cfg.run_dir)) if result.cfg is not None else Path()
    summary = stored_json(folder / "summary.json", "hydra.sweep.dir", "want a finished run")
    facts = {"folder": str(folder), "measures": {}}
    if options.measured_on is TrialPrompts.validation:
        means = means_of(summary.get("validation") or {})
        if names.TOXICITY not in means:
            raise SettingsError(f"{folder}: summary.json has no measures on validation prompts")
        point = objectives(means)
        facts["measures"] = means
    else:
        first, second = (*result.return_value, 0.0)[:2]
        point = float(first), float(second)
        facts["measures"] = means_of(summary.get("after") or {})
    if not all(map(math.isfinite, point)):
        raise SettingsError(f"{folder}: objectives {point} are not finite")
    return point, facts


def _write(folder: Path, study: Any, options: StudyOptions) -> list[dict[str, Any]]:
    """Write study.json, which the page of the sweep reads."""
    from lora_detox.comparison.jobs import STUDY  # noqa: PLC0415 (reports)
    from lora_detox.report.jsonl import write_json_atomic  # noqa: PLC0415

    rows: list[dict[str, Any]] = study.rows()
    measured_on = str(options.measured_on)
    write_json_atomic(folder / STUDY, {"schema": 1, "measured_on": measured_on, "trials": rows})
    return rows


def _counts(rows: Sequence[dict[str, Any]]) -> str:
    states = [row["state"] for row in rows]
    named = {"complete": "complete", "pruned": "pruned", "fail": "failed"}
    counts = [f"{states.count(key)} {name}" for key, name in named.items() if key in states]
    front = sum(bool(row["front"]) for row in rows)
    return f"{len(rows)} trials: {', '.join(counts)}; {front} on the front"


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
