"""Results as JSON: what tables and pictures are made of, small enough to be kept beside a recipe.

`results.json` holds the sizes of the comparison and one run per line, under its folder's name
(`ppo/seed0`, `base`). It outlives the run directories: runs that only it knows count as finished,
and are in every table.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lora_detox.report.jsonl import write_text_atomic
from recipes.lab.judged import CORPUS, Judged, read

COLUMNS = {
    "judged_toxic": ("judge",),
    "judged_positive": ("judge",),
    "perplexity": ("nll", "tokens"),
    **dict.fromkeys(CORPUS, ()),
}
"""Measure -> columns of `Judged` that it is computed from, where it is not a column itself."""
DECIMALS = {"judge": 4, "nll": 2, "digits": 4, "rougeL": 4, "symbols": 4, "relevance": 3}
"""What is kept of a column; the others are whole numbers."""
Measures = Mapping[str, Iterable[str]]
"""Set -> measures that tables show of it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished run.

    Attributes:
        sets: its responses to the judged sets.
        facts: of its training: kl (nats), seconds, members (runs that were trained), averaged
            (those whose mean it is), iterations, chosen_iteration, chosen_share (fraction of the
            way from the start to that iteration), trainable (weights that learn).
        trail: column of metrics.jsonl -> one number per iteration of the training.
    """

    sets: dict[str, Judged]
    facts: dict[str, float]
    trail: dict[str, list[float]] = field(default_factory=dict)


def read_run(folder: Path, trail: Sequence[str] = ()) -> Result:
    """A run from its `evaluate/` and, where it trained, `train/`.

    Args:
        folder: of the run.
        trail: columns of its metrics.jsonl to read.
    """
    facts: dict[str, float] = {}
    trained = folder / "train" / "summary.json"
    if trained.is_file():
        (model,) = json.loads((folder / "evaluate" / "summary.json").read_text())["models"]
        summary = json.loads(trained.read_text(encoding="utf-8"))
        budget = summary.get("budget", {})
        parts = sorted(folder.glob("member*/summary.json"))
        members = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
        facts = {
            "kl": round(model["sets"]["in_distribution"]["ref_kl"], 3),
            "seconds": round(sum(one["seconds"]["total"] for one in (summary, *members)), 1),
            "members": max(1, len(members)),
            "averaged": len(summary.get("soup", {}).get("runs", (folder,))),
            "iterations": summary["iterations"],
            "chosen_iteration": budget.get("chosen_iteration", summary["iterations"]),
            "chosen_share": budget.get("chosen_share", 1.0),
        }
        if "parameters" in summary:
            facts["trainable"] = summary["parameters"]["trainable"]
    columns = read_trail(folder / "train", trail) if facts and trail else {}
    return Result(sets=read(folder), facts=facts, trail=columns)


def read_trail(train: Path, columns: Sequence[str]) -> dict[str, list[float]]:
    """Columns of a training's metrics.jsonl, one number per iteration."""
    lines = (train / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "seconds_update" in row]
    return {name: [round(row[name], 5) for row in rows] for name in columns}


def pack(result: Result, measures: Measures) -> dict[str, object]:
    """A run as JSON, with the columns that some measures of each set need."""
    sets: dict[str, dict[str, object]] = {}
    for name, wanted in measures.items():
        judged = result.sets[name]
        needed = dict.fromkeys(column for one in wanted for column in COLUMNS.get(one, (one,)))
        columns = {
            column: np.round(judged.columns[column], DECIMALS[column]).tolist()
            if column in DECIMALS
            else judged.columns[column].astype(int).tolist()
            for column in needed
        }
        sets[name] = {"distinct_2": round(judged.distinct_2, 5), "columns": columns}
        if judged.corpus:
            sets[name]["corpus"] = {key: round(value, 5) for key, value in judged.corpus.items()}
    trail = {"trail": result.trail} if result.trail else {}
    return {"facts": result.facts, "sets": sets, **trail}


def unpack(stored: Mapping[str, Mapping[str, Any]]) -> Result:
    """The run that `pack` wrote."""
    sets = {
        name: Judged(
            columns={key: np.array(values, dtype=float) for key, values in one["columns"].items()},
            distinct_2=one["distinct_2"],
            corpus=one.get("corpus", {}),
        )
        for name, one in stored["sets"].items()
    }
    return Result(sets=sets, facts=dict(stored["facts"]), trail=dict(stored.get("trail", {})))


class OtherSizesError(SystemExit):
    """The folder holds results of other sizes; ends a program with its message and status 1."""


def stored_runs(out: Path, sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """What `results.json` of a folder holds, by the names of the runs.

    Args:
        out: folder of the results.
        sizes: what has to be the same for two runs to stand in one table.

    Returns:
        Name of the run -> what `pack` wrote; empty without a file.

    Raises:
        OtherSizesError: if the file was written with other sizes.
    """
    file = out / "results.json"
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))
    if stored["sizes"] != dict(sizes):
        raise OtherSizesError(
            f"{file} holds runs of {stored['sizes']}, got {dict(sizes)}; "
            "give the same ones, or another --out"
        )
    runs: dict[str, dict[str, Any]] = stored["runs"]
    return runs


def collect(
    out: Path, measures: Measures, sizes: Mapping[str, int], trail: Sequence[str] = ()
) -> dict[str, Result]:
    """Every finished run of a folder and of its `results.json`, which is brought up to date.

    All of them are read as they are stored, so that the file alone gives the same table.

    Args:
        out: folder of the results.
        measures: what tables show of each set, which is what is kept.
        sizes: as for `stored_runs`.
        trail: as for `read_run`.

    Returns:
        Name of the run -> its result, by name.

    Raises:
        OtherSizesError: as `stored_runs`.
    """
    stored = dict(stored_runs(out, sizes))
    for file in sorted(out.glob("**/evaluate/summary.json")):
        folder = file.parents[1]
        stored[folder.relative_to(out).as_posix()] = pack(read_run(folder, trail), measures)
    if not stored:
        return {}
    lines = [f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in sorted(stored)]
    text = f'{{"sizes": {json.dumps(dict(sizes))},\n"runs": {{\n' + ",\n".join(lines) + "\n}}\n"
    write_text_atomic(out / "results.json", text)
    return {name: unpack(stored[name]) for name in sorted(stored)}
