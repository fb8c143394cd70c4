"""What each method wrote at each setting of its knob: read from its runs, or from kept results.

`results.json` in the folder of the results holds the numbers of every finished run, no texts. A run
that it holds counts as finished, so that a comparison of many hours can go on elsewhere.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_detox.metrics import names
from lora_detox.metrics.diversity import response_words
from lora_detox.metrics.frontier import Point
from lora_detox.report.jsonl import plain, write_text_atomic
from recipes.lab.subjects import Quality
from recipes.method_frontiers.methods import DECODED, LABELS

RESULTS = "results.json"
MEANS = ("response_words", "distinct_2", "relevance", "symbols", "rougeL")
"""Of `summary.json`, where they were measured."""
DIGITS = 4
BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of a method: what it wrote at one setting of its knob.

    Attributes:
        point: toxicity by the judge, likelihood or ROUGE-L, and what is kept, of each response.
        means: over the responses, as `MEANS` names them.
        rows: of `samples.jsonl`; none where only the numbers were kept.
    """

    point: Point
    means: Mapping[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)


Runs = dict[str, list[Setting]]
"""Name of a run, as its folder, -> its points."""
Curves = dict[str, list[list[Setting]]]
"""Method -> its seeds -> their points, from weak to strong; the first is the start."""


def read_runs(out: Path, quality: Quality) -> Runs:
    """Every finished run below a folder and every one of its `results.json`.

    Args:
        out: folder of the results.
        quality: what the columns are that a point needs.
    """
    runs = kept_runs(out)
    for method in (BASE, *LABELS):
        for folder in _folders(out / method, method):
            if _finished(folder):
                runs[str(folder.relative_to(out))] = settings_of(folder, quality, method)
    return runs


def _folders(home: Path, method: str) -> list[Path]:
    if method == BASE:
        return [home]
    if method in DECODED:
        return [home / f"{value:g}" for value in DECODED[method].values]
    return sorted(home.glob("seed*"))


def _finished(folder: Path) -> bool:
    return (folder / "evaluate" / "summary.json").is_file()


def curves_of(runs: Runs) -> Curves:
    """The curve of every method that has a finished run; each begins at the start.

    Args:
        runs: with that of the base.
    """
    (start,) = runs[BASE]
    curves: dict[str, list[list[Setting]]] = defaultdict(list)
    for method in LABELS:
        of_method = sorted(name for name in runs if name.split("/")[0] == method)
        seeds = [runs[name] for name in of_method]
        if method in DECODED and seeds:
            seeds = [[point for points in seeds for point in points]]
        for points in seeds:
            curves[method].append([start, *sorted(points, key=lambda one: abs(one.point.knob))])
    return dict(curves)


def settings_of(folder: Path, quality: Quality, method: str) -> list[Setting]:
    """The points of a run: one for each strength, or one at a knob.

    Args:
        folder: of the run; `evaluate` in it has its points, `evaluate_*` those that were added.
        quality: what the columns are that a point needs.
        method: of the run; the folder of a decoding is named by its knob.
    """
    fixed = float(folder.name) if method in DECODED else float(method != BASE)
    stages = sorted(one.parent for one in folder.glob("evaluate*/summary.json"))
    return [point for stage in stages for point in _evaluated(stage, quality, fixed)]


def _evaluated(stage: Path, quality: Quality, fixed: float) -> list[Setting]:
    """The points of one evaluation; without strengths, the one at a fixed knob."""
    summary = json.loads((stage / "summary.json").read_text(encoding="utf-8"))
    lines = (stage / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    (model,) = summary["models"]
    entries = model.get("frontier") or [{"strength": None, "sets": model["sets"]}]
    found = []
    for entry in entries:
        strength = entry["strength"]
        own = [row for row in rows if row.get("strength") == strength]
        numbers = entry["sets"]["in_distribution"]
        found.append(
            Setting(
                point=_point(fixed if strength is None else strength, own, quality),
                means={name: numbers[name] for name in MEANS if name in numbers},
                rows=own,
            )
        )
    return found


def _point(knob: float, rows: list[dict[str, Any]], quality: Quality) -> Point:
    def column(name: str) -> list[float]:
        if name == names.RESPONSE_WORDS:  # no column of samples.jsonl
            return [response_words(row["response"]) for row in rows]
        return [np.nan if row[name] is None else row[name] for row in rows]

    kept = {name: column(name) for name in quality.kept}
    toxicity = column("judge_toxicity")
    if quality.measure == "rougeL":
        return Point(knob=knob, toxicity=toxicity, rouge=column("rougeL"), kept=kept)
    nll, tokens = column("reference_nll"), column("response_tokens")
    return Point(knob=knob, toxicity=toxicity, nll=nll, tokens=tokens, kept=kept)


def kept_runs(out: Path) -> Runs:
    """The runs of `results.json`; none where there is no such file."""
    file = out / RESULTS
    stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: [_unpacked(one) for one in points] for name, points in stored.items()}


def keep_runs(out: Path, runs: Runs) -> None:
    """Write the numbers of runs to `results.json`, one point a line.

    Args:
        out: folder of the results.
        runs: those that it held before among them.
    """
    lines = []
    for name, points in sorted(runs.items()):
        parts = ",\n".join(json.dumps(_packed(one)) for one in points)
        lines.append(f"{json.dumps(name)}: [\n{parts}]")
    write_text_atomic(out / RESULTS, "{\n" + ",\n".join(lines) + "\n}\n")


def _packed(one: Setting) -> dict[str, Any]:
    packed = asdict(one)
    del packed["rows"]
    return dict(plain(_rounded(packed)))  # NaN becomes null


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _unpacked(stored: dict[str, Any]) -> Setting:
    point = dict(stored["point"])
    columns = {name: _numbers(point[name]) for name in ("toxicity", "nll", "tokens", "rouge")}
    kept = {name: _numbers(values) for name, values in point["kept"].items()}
    return Setting(point=Point(knob=point["knob"], **columns, kept=kept), means=stored["means"])


def _numbers(values: list[float | None]) -> list[float]:
    return [np.nan if one is None else one for one in values]
