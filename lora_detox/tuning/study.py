"""The trials of a study: chosen by Optuna, kept on disk, gone on with after any end."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_detox.choices import TrialSampler
from lora_detox.comparison.jobs import RECORDS, read_jobs
from lora_detox.comparison.objectives import Point
from lora_detox.errors import SettingsError
from lora_detox.report.jsonl import plain
from lora_detox.tuning.options import StudyOptions
from lora_detox.tuning.space import Space

JOURNAL = "study.journal"
_SPACE, _AGAIN, _OF = "space", "again", "again_of"
_EXTRA = "hydra/sweeper=optuna: {error}; it is an extra: pip install 'lora_detox[sweeps]'"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One job of a study that is to run.

    Attributes:
        number: of the trial, and of its job.
        overrides: of the job.
    """

    number: int
    overrides: tuple[str, ...]


class StudyRecord:
    """A study in its storage.

    Args:
        folder: of the sweep.
        options: of the study.
        space: what is chosen from.

    Raises:
        SettingsError: Optuna is not installed, the storage cannot be opened, or it holds another
            study.
    """

    def __init__(self, folder: Path, options: StudyOptions, space: Space) -> None:
        self._optuna = _optuna()
        self._options, self._space, self._folder = options, space, folder
        if options.storage is None and not (folder / JOURNAL).exists() and _has_jobs(folder):
            raise SettingsError(
                f"hydra.sweep.dir: {folder} holds the jobs of another sweep; name another folder"
            )
        self._study = self._opened()
        self._check_same()

    def begin(self) -> list[Trial]:
        """Settle what an earlier call has left unended.

        Returns:
            Trials with a checkpoint, which go on under their numbers; of the others the parameters
            are tried once more under new ones.
        """
        going_on = []
        folders = {job.number: Path(job.folder) for job in read_jobs(self._folder)}
        for one in self._trials("RUNNING"):
            folder = folders.get(one.number)
            if folder is not None and any((folder / "checkpoints").glob("*/run.json")):
                overrides = [*self._space.overrides(one.params), "resume=true"]
                going_on.append(Trial(number=one.number, overrides=tuple(overrides)))
            else:
                self.fail(one.number, "was interrupted before its first checkpoint", again=True)
        return going_on

    def missing(self) -> int:
        """How many trials are still to be begun."""
        done = self._trials("COMPLETE", "PRUNED", "FAIL", "RUNNING")
        return self._options.trials - sum(_AGAIN not in one.user_attrs for one in done)

    def choose(self, count: int) -> list[Trial]:
        """Begin so many trials."""
        chosen = [self._study.ask(self._space.distributions()) for _ in range(count)]
        return [
            Trial(number=one.number, overrides=tuple(self._space.overrides(one.params)))
            for one in chosen
        ]

    def complete(self, number: int, point: Point, facts: dict[str, Any]) -> None:
        """A trial has come to its end.

        Args:
            number: of the trial.
            point: its objectives.
            facts: what else is kept of it.
        """
        self._keep(number, facts)
        self._study.tell(number, list(point))

    def prune(self, number: int, reason: str) -> None:
        """A trial was ended early."""
        self._keep(number, {"error": reason})
        self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, error: str, *, again: bool = False) -> None:
        """A trial has failed.

        Args:
            number: of the trial.
            error: why.
            again: by no fault of its own, so that its parameters are tried once more.
        """
        trial = self._study.trials[number]
        retry = again and _OF not in trial.user_attrs
        self._keep(number, {"error": error, **({_AGAIN: True} if retry else {})})
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        if retry:
            self._study.enqueue_trial(trial.params, user_attrs={_OF: number})

    def rows(self) -> list[dict[str, Any]]:
        """All trials, as study.json has them."""
        front = {one.number for one in self._study.best_trials}
        return [
            {
                "number": one.number,
                "state": one.state.name.lower(),
                "overrides": self._space.overrides(one.params)[len(self._space.fixed) :],
                "objectives": one.values,
                "front": one.number in front,
                **{key: value for key, value in one.user_attrs.items() if key != _SPACE},
            }
            for one in self._trials("COMPLETE", "PRUNED", "FAIL", "RUNNING")
        ]

    def _trials(self, *states: str) -> list[Any]:
        return [one for one in self._study.trials if one.state.name in states]

    def _keep(self, number: int, facts: dict[str, Any]) -> None:
        trial = self._study.trials[number]
        for key, value in facts.items():
            self._study._storage.set_trial_user_attr(trial._trial_id, key, plain(value))

    def _opened(self) -> Any:
        storages, options = self._optuna.storages, self._options
        try:
            if options.storage is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                backend = storages.journal.JournalFileBackend(str(self._folder / JOURNAL))
                storage = storages.JournalStorage(backend)
            else:
                storage = storages.get_storage(options.storage)
            study = self._optuna.create_study(
                study_name=options.name,
                storage=storage,
                directions=["minimize", "minimize"],
                load_if_exists=True,
            )
        except Exception as error:  # of a database's driver, which may be any
            place = options.storage or str(self._folder / JOURNAL)
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise SettingsError(
                f"hydra.sweeper.storage: {place} cannot be opened ({reason[0]}); want null, or a "
                "URL of SQLAlchemy as sqlite:///study.db"
            ) from error
        study.sampler = self._sampler(len(study.trials))
        return study

    def _sampler(self, trials: int) -> Any:
        """With draws of its own for each call, so that one that goes on repeats no trial."""
        samplers, options = self._optuna.samplers, self._options
        seed = options.seed + trials
        if options.sampler is TrialSampler.random:
            return samplers.RandomSampler(seed=seed)
        if options.sampler is TrialSampler.nsga2:
            return samplers.NSGAIISampler(seed=seed, population_size=options.random_trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return samplers.TPESampler(
                seed=seed,
                n_startup_trials=options.random_trials,
                constant_liar=options.at_once > 1,
            )

    def _check_same(self) -> None:
        """The study that is there is the one of this command."""
        now = [f"measured on {self._options.measured_on} prompts", *self._space.words()]
        before = self._study.user_attrs.get(_SPACE)
        if before is None and self._study.trials:
            raise SettingsError(
                f"hydra.sweeper.name: the storage has a study {self._options.name} of something "
                "else; give this one another name"
            )
        if before is None:
            self._study.set_user_attr(_SPACE, now)
        elif before != now:
            gone = [f"then {one}" for one in before if one not in now]
            new = [f"now {one}" for one in now if one not in before]
            raise SettingsError(
                f"hydra.sweep.dir: the study in {self._folder} chose from something else "
                f"({'; '.join([*gone, *new])}); type the same overrides (hydra.sweeper.trials may "
                "rise), or name another folder"
            )


def _optuna() -> Any:
    """The package, silenced."""
    try:
        import optuna  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise SettingsError(_EXTRA.format(error=error)) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _has_jobs(folder: Path) -> bool:
    return (folder / RECORDS).is_dir() or (folder / "multirun.yaml").exists()


def batches(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials in runs of consecutive numbers, which a launcher counts up itself."""
    groups: list[list[Trial]] = []
    for one in trials:
        if groups and groups[-1][-1].number + 1 == one.number:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups
