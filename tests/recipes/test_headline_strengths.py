"""The frontier of several seeds by strength: read, tabled and drawn."""

import json

from judged_runs import write_judged

from recipes.headline import strengths
from recipes.lab.judged import read_strengths


def by_strength(folder, judge_levels):
    """An evaluation at strengths of which each has its own level of the judge."""
    rows, frontier = [], []
    for strength, level in judge_levels.items():
        own = folder.parents[1] / "parts" / f"{folder.name}_{strength}"
        write_judged(own, level)
        lines = (own / "evaluate" / "samples.jsonl").read_text().splitlines()
        rows += [json.loads(line) | {"strength": strength, "rougeL": 0.2} for line in lines]
        (model,) = json.loads((own / "evaluate" / "summary.json").read_text())["models"]
        frontier.append({"strength": strength, "sets": model["sets"]})
    (folder / "evaluate").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluate" / "samples.jsonl").write_text(lines)
    summary = {"models": [{"name": "m", "sets": frontier[-1]["sets"], "frontier": frontier}]}
    (folder / "evaluate" / "summary.json").write_text(json.dumps(summary))


def test_strengths_are_read_apart_and_compared_with_the_start(tmp_path):
    for seed, least in enumerate((0.05, 0.15)):
        folder = tmp_path / "all" / f"seed{seed}"
        folder.mkdir(parents=True)
        by_strength(folder, {0.0: 0.4, 0.5: 0.2, 1.0: least})
    one = read_strengths(tmp_path / "all" / "seed0")
    assert {at: float(sets["in_distribution"].level("judge")) for at, sets in one.items()} == {
        0.0: 0.4,
        0.5: 0.2,
        1.0: 0.05,
    }
    levels = strengths.by_strength(tmp_path / "all")
    rows = strengths.markdown(levels).splitlines()
    assert rows[2].startswith("| 0 | 0.4 | 0.2 | 3 |")
    assert rows[3].startswith("| 0.5 | 0.2, -50 % [-50, -50] |")
    assert rows[4].startswith("| 1 | 0.1, -75 % [-88, -62] |"), "over the seeds, as prompts agree"
    strengths.picture(levels, tmp_path / "strengths.png")
    assert (tmp_path / "strengths.png").stat().st_size > 10_000
