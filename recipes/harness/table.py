"""What stage=evaluate and the harnesses measured of the same prompts, side by side."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_detox.evaluation.harness import MEANS, OF_SAMPLES
from lora_detox.metrics.bootstrap import paired_interval
from lora_detox.metrics.degeneration import TOXIC_FROM
from recipes.lab.tables import markdown_table

JUDGE = "judge_toxicity"
OF_RESPONSES: dict[str, Callable[[Any], Any]] = {
    MEANS[0]: lambda toxicity: toxicity.mean(axis=1),
    MEANS[1]: lambda toxicity: (toxicity >= TOXIC_FROM).mean(axis=1),
    OF_SAMPLES[0]: lambda toxicity: toxicity.max(axis=1),
    OF_SAMPLES[1]: lambda toxicity: (toxicity >= TOXIC_FROM).any(axis=1),
}
"""Measures of each prompt from the toxicity of its responses [P, k]."""


@dataclass(frozen=True, kw_only=True)
class System:
    """What one program measured.

    Attributes:
        name: of the program.
        figures: as its own results file states them.
        by_prompt: the same measures of each prompt, in the order of the prompts.
        responses: k texts for each prompt.
    """

    name: str
    figures: dict[str, float]
    by_prompt: dict[str, list[float]]
    responses: list[list[str]]


def stage_rows(folder: Path) -> list[dict[str, Any]]:
    """Responses of a run of stage=evaluate, those of a prompt in a row."""
    lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_stage(folder: Path, samples: int) -> System:
    """A run of stage=evaluate by the RealToxicityPrompts protocol.

    Args:
        folder: of the run.
        samples: responses per prompt.

    Returns:
        Its measures. The fraction of toxic responses stands in no file and is counted from
        samples.jsonl; the others are those of summary.json.
    """
    rows = stage_rows(folder)
    toxicity = np.asarray([row[JUDGE] for row in rows]).reshape(-1, samples)
    names = MEANS if samples == 1 else (*MEANS, *OF_SAMPLES)
    by_prompt = {name: OF_RESPONSES[name](toxicity).astype(float).tolist() for name in names}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    measured = summary["models"][0]["sets"]["in_distribution"]
    figures = {MEANS[0]: measured[JUDGE]["mean"], MEANS[1]: float(np.mean(by_prompt[MEANS[1]]))}
    figures |= {name: measured["degeneration"][name] for name in names if name in OF_SAMPLES}
    texts = [row["response"] for row in rows]
    return System(
        name="stage=evaluate",
        figures=figures,
        by_prompt=by_prompt,
        responses=[texts[at : at + samples] for at in range(0, len(texts), samples)],
    )


def read_lm_eval(folder: Path) -> System:
    """A run of lm-evaluation-harness with `--log_samples`."""
    results = json.loads(_newest(folder, "results_*.json").read_text(encoding="utf-8"))
    (measured,) = results["results"].values()
    figures = {name: measured[f"{name},all"] for name in OF_RESPONSES if f"{name},all" in measured}
    lines = _newest(folder, "samples_*.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["doc_id"])
    return System(
        name=f"lm_eval {results.get('lm_eval_version', '')}".strip(),
        figures=figures,
        by_prompt={name: [row[name] for row in rows] for name in figures},
        responses=[row["resps"][0] for row in rows],
    )


def read_lighteval(folder: Path) -> list[System]:
    """A run of lighteval with `--save-details`; empty where there is none."""
    if not folder.is_dir():
        return []
    import pyarrow.parquet  # noqa: PLC0415 - of `datasets`, and only these files need it

    results = json.loads(_newest(folder, "results_*.json").read_text(encoding="utf-8"))
    measured = results["results"]["all"]
    figures = {name: measured[name] for name in OF_RESPONSES if name in measured}
    rows = pyarrow.parquet.read_table(_newest(folder, "details_*.parquet")).to_pylist()
    rows.sort(key=lambda row: int(row["doc"]["id"]))
    return [
        System(
            name="lighteval",
            figures=figures,
            by_prompt={name: [row["metric"][name] for row in rows] for name in figures},
            responses=[row["model_response"]["text"] for row in rows],
        )
    ]


def equal_responses(one: System, other: System) -> int:
    """How many prompts have the same responses in both."""
    pairs = zip(one.responses, other.responses, strict=True)
    return sum(list(ours) == list(theirs) for ours, theirs in pairs)


def markdown(systems: Sequence[System]) -> str:
    """One row per measure; differences to the first system with 95 % intervals over prompts."""
    first, *others = systems
    heads = ["", first.name]
    for other in others:
        heads += [other.name, "difference"]
    rows = []
    for name, value in first.figures.items():
        cells = [name, f"{value:.6f}"]
        for other in others:
            cells += [f"{other.figures[name]:.6f}", _difference(first, other, name)]
        rows.append(cells)
    count = len(first.responses)
    equal = ["prompts with equal responses", str(count)]
    for other in others:
        equal += [f"{equal_responses(first, other)} of {count}", ""]
    return markdown_table(heads, [*rows, equal])


def _difference(first: System, other: System, name: str) -> str:
    change = other.figures[name] - first.figures[name]
    interval = paired_interval(first.by_prompt[name], other.by_prompt[name])
    if interval.high - interval.low < 1e-6:
        return f"{change:+.1e}"
    return f"{change:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _newest(folder: Path, pattern: str) -> Path:
    files = sorted(folder.rglob(pattern))
    if not files:
        raise SystemExit(f"{folder} holds no {pattern}; run without --report")
    return files[-1]
