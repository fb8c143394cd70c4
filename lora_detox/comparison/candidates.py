"""What finished runs ship, read from their folders: each model and each strength is a candidate."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_detox.errors import SettingsError
from lora_detox.metrics import names
from lora_detox.report.jsonl import read_jsonl
from lora_detox.settings.plain import flat
from lora_detox.settings.stored import stored_json, stored_settings

KEY = "runs"
COMPARED = ("detox", "sft", "soup", "evaluate")
"""Stages whose runs have responses to compare."""
SCORES = (
    names.TOXICITY,
    names.JUDGE_TOXICITY,
    names.ROUGEL,
    names.RELEVANCE,
    names.SIMILARITY,
    names.FLUENCY,
    names.JOINT,
    names.JUDGE_JOINT,
    names.RESPONSE_TOKENS,
    names.REFERENCE_NLL,
)
"""Measures that samples.jsonl has of each response."""
FIRST_SET = "in_distribution"
"""The set of stage=evaluate that is compared; its page has the further ones."""
_WHOLE = "want the whole folder of a finished run"

Prompt = tuple[str, int]
"""Text of a prompt, and which of the responses to it: 0 is the first."""
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response.

    Attributes:
        text: as the model wrote it.
        scores: measure -> number, of `SCORES`; without what is not known.
        further: references and further columns of its row.
    """

    text: str
    scores: Mapping[str, float]
    further: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model on the prompts of its run.

    Attributes:
        numbers: measure -> mean, as `summary.json` holds it.
        answers: of each prompt, in the order of the file.
    """

    numbers: Row
    answers: Mapping[Prompt, Answer]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What one run ships, or one model at one strength of stage=evaluate.

    Attributes:
        name: for tables, unique among the candidates of a call.
        model: its name within its run, with its strength; empty where the run has one result.
        run: folder of its run.
        stage: that made it: one of `COMPARED`.
        task: of the run.
        policy: base model.
        seed: of the run.
        strength: of the adapter; None where the run has no strengths.
        scorers: role -> id of who measured.
        result: what it answered.
        start: what it started from; None where the run measured none.
        start_name: of that, for people.
        changes: measure -> {"mean", "ci95"} of result - start, as the run measured them.
        settings: of the run, dotted keys.
        overrides: of the command line that began the run; empty where it does not say.
        shared_training: what its reward and judge learned from in common, as a sentence; may be
            empty.
    """

    name: str
    model: str
    run: str
    stage: str
    task: str
    policy: str
    seed: int | None
    strength: float | None
    scorers: Mapping[str, str]
    result: Side
    start: Side | None
    start_name: str
    changes: Row
    settings: Mapping[str, object]
    overrides: Sequence[str] = ()
    shared_training: str = ""


def read_candidates(folders: Sequence[str]) -> list[Candidate]:
    """Read every candidate of finished runs.

    Args:
        folders: of runs of `COMPARED`; the folder of a multirun counts as those of its jobs.

    Returns:
        In the order of the folders, with names that differ.

    Raises:
        SettingsError: a folder that is missing, named twice or no finished run with responses.
        DataError: a damaged row of samples.jsonl.
    """
    places = run_folders(folders)
    candidates = [one for place in places for one in read_run(place)]
    return with_names(candidates, several=len(places) > 1)


def run_folders(folders: Sequence[str]) -> list[Path]:
    """Folders of finished runs, those of a multirun in the order of its jobs.

    Args:
        folders: as given.

    Returns:
        Without a doubt of which each is; a job of a multirun that did not finish is left out.

    Raises:
        SettingsError: a folder that is missing, empty of runs, or named twice.
    """
    places: list[Path] = []
    for given in folders:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise SettingsError(f"{KEY}: there is no folder {given}; want folders of finished runs")
        jobs = [] if (folder / "summary.json").exists() else finished_jobs(folder)
        if not jobs and not (folder / "summary.json").is_file():
            raise SettingsError(
                f"{KEY}: {given} has no summary.json, so it is no run, or one that did not finish "
                "(resume=true ends it); want folders of finished runs"
            )
        places += jobs or [folder]
    count = Counter(one.resolve() for one in places)
    again = [str(one) for one, times in count.items() if times > 1]
    if again:
        raise SettingsError(f"{KEY}: {', '.join(again)} is named twice; want each run once")
    return places


def finished_jobs(folder: Path) -> list[Path]:
    """Folders of the jobs of a multirun that have a result, in the order of their numbers."""
    jobs = [one.parent for one in folder.glob("*/summary.json") if one.is_file()]
    return sorted(jobs, key=lambda one: (job_number(one.name), one.name))


def job_number(name: str) -> float:
    """The number that a job's folder begins with; infinity where it begins otherwise."""
    digits = name.split("_", 1)[0]
    return int(digits) if digits.isascii() and digits.isdigit() else math.inf


def read_run(folder: Path) -> list[Candidate]:
    """The candidates of one finished run.

    Args:
        folder: with summary.json, samples.jsonl and config.yaml.

    Returns:
        At least one.

    Raises:
        SettingsError: of a stage without responses, or files that are not as a run writes them.
        DataError: a damaged row of samples.jsonl.
    """
    summary = stored_json(folder / "summary.json", KEY, _WHOLE)
    stage = stage_of(summary)
    if stage not in COMPARED:
        raise SettingsError(
            f"{KEY}: {folder} is a run of stage={stage}, which has no responses to compare; want "
            f"runs of stage={', '.join(COMPARED)}"
        )
    rows = read_jsonl(folder / "samples.jsonl")
    if not rows:
        raise SettingsError(
            f"{KEY}: {folder} has no samples.jsonl with responses, which are what is compared; "
            f"{_WHOLE}"
        )
    settings = flat(stored_settings(folder / "config.yaml", KEY, _WHOLE))
    return run_candidates(summary, rows, settings, folder)


def run_candidates(
    summary: Row, rows: Sequence[Row], settings: Mapping[str, object], folder: Path
) -> list[Candidate]:
    """The candidates of a run from what it wrote.

    Args:
        summary: the `summary.json` dict of a stage of `COMPARED`.
        rows: of samples.jsonl.
        settings: of the run, dotted keys.
        folder: of the run.

    Returns:
        One of a training run; of stage=evaluate one of each model and strength beside the start.

    Raises:
        SettingsError: a part is missing.
    """
    evaluated = stage_of(summary) == "evaluate"
    try:
        agreement = summary.get("scorer_agreement") or {}
        common = {
            "run": str(folder),
            "stage": stage_of(summary),
            "task": str(summary["task"]),
            "seed": summary.get("seed"),
            "scorers": {str(role): str(one) for role, one in summary["scorers"].items()},
            "settings": settings,
            "overrides": tuple(map(str, summary.get("overrides", ()))),
            "shared_training": str((agreement.get("training_data") or {}).get("sentence", "")),
        }
        return (_evaluated if evaluated else _trained)(summary, rows, common)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"{KEY}: summary.json and samples.jsonl of {folder} are not as a run writes them "
            f"({reason[:200]}); {_WHOLE}"
        ) from error


def stage_of(summary: Row) -> str:
    """The stage that wrote a summary; that of stage=detox does not name it."""
    return str(summary.get("stage") or ("soup" if "soup" in summary else "detox"))


def with_names(candidates: Sequence[Candidate], *, several: bool) -> list[Candidate]:
    """The same with names that differ, as short as they can be.

    Args:
        candidates: of one call.
        several: whether they come from several runs.

    Returns:
        Named after the run's folder, the model of stage=evaluate and its strength.
    """
    named = list(candidates)
    for parts in (1 if several else 0, 2, 3, 99):
        named = [replace(one, name=_name(one, parts)) for one in candidates]
        if len({one.name for one in named}) == len(named):
            break
    return named


def _name(candidate: Candidate, parts: int) -> str:
    """The last parts of the run's path, at least one where nothing else names the candidate."""
    place = Path(candidate.run).resolve().parts
    kept = max(parts, 0 if candidate.model else 1)
    run = "/".join(place[-kept:]) if kept else ""
    return ": ".join(part for part in (run, candidate.model) if part)


def _trained(summary: Row, rows: Sequence[Row], common: dict[str, Any]) -> list[Candidate]:
    return [
        Candidate(
            **common,
            name=Path(common["run"]).resolve().name,
            model="",
            policy=str(summary["policy"]),
            strength=None,
            result=Side(numbers=summary["after"], answers=_answers(rows, "after", "_after")),
            start=Side(numbers=summary["before"], answers=_answers(rows, "before", "_before")),
            start_name="Start",
            changes=summary["change"],
        )
    ]


def _evaluated(summary: Row, rows: Sequence[Row], common: dict[str, Any]) -> list[Candidate]:
    """Each model at each strength; what the others are measured against is their start."""
    points = [
        (model, point.get("strength"), point["sets"][FIRST_SET])
        for model in summary["models"]
        for point in model.get("frontier") or [model]
    ]
    sides: dict[tuple[str, float | None], Side] = {}
    for model, strength, numbers in points:
        asked = [
            row
            for row in rows
            if row["set"] == FIRST_SET
            and row["model"] == model["name"]
            and row.get("strength") == strength
        ]
        sides[model["name"], strength] = Side(
            numbers=numbers, answers=_answers(asked, "response", "")
        )
    first = next(iter(sides))
    candidates = []
    for model, strength, numbers in points:
        name = model["name"]
        base = (name, 0) if (name, 0) in sides else first
        is_start = base == (name, strength)
        if is_start and len(points) > 1 and _is_bare(model, strength):
            continue
        shown = str(name) if strength is None else f"{name} at strength {strength:g}"
        candidates.append(
            Candidate(
                **common,
                name=shown,
                model=shown,
                policy=str(model["path"]),
                strength=strength,
                result=sides[name, strength],
                start=None if is_start else sides[base],
                start_name=str(base[0]) if base[1] is None else f"{base[0]} at strength 0",
                changes=numbers.get("change", {}),
            )
        )
    return candidates


def _is_bare(model: Row, strength: float | None) -> bool:
    """Whether a row of stage=evaluate is a base model as it is, and nobody's result."""
    plain = (model.get("decoding") or {}).get("name", "plain") == "plain"
    return plain and (strength == 0 or model.get("adapter") is None)


def _answers(rows: Iterable[Row], text: str, suffix: str) -> dict[Prompt, Answer]:
    count: Counter[str] = Counter()
    answers = {}
    for row in rows:
        prompt = str(row["prompt"])
        scores = {key: _number(row.get(f"{key}{suffix}")) for key in SCORES}
        answers[prompt, count[prompt]] = Answer(
            text=str(row[text]),
            scores={key: one for key, one in scores.items() if one is not None},
            further={key: row[key] for key in ("references", "columns") if row.get(key)},
        )
        count[prompt] += 1
    return answers


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None
