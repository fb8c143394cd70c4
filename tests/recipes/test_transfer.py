"""Conditions of use compose, and the table compares each with its own base."""

import json

from lora_detox.api import compose_settings
from recipes.lab.real import RealModels
from recipes.transfer import run as transfer
from recipes.transfer.conditions import conditions
from recipes.transfer.table import write_report


def test_every_condition_composes(tmp_path):
    given = transfer.arguments(["--shared", str(tmp_path), "--out", str(tmp_path / "out")])
    queue = transfer.runs(given, RealModels(home=tmp_path / "real"))
    assert len(queue) == 4 * len(conditions(given.shared)) == 32
    seen = set()
    for run in queue:
        (step,) = run.steps
        settings = compose_settings(step.command[3:-1], tmp_path / "nothing")
        assert "{prompt}" in settings.task.template
        assert "\\" not in settings.task.template
        seen.add(
            (
                settings.task.chat,
                settings.task.template,
                settings.data.path,
                settings.generation.temperature,
                tuple(settings.generation.response_tokens),
            )
        )
    assert len(seen) == len(conditions(given.shared))


def write_judged(folder, level):
    """An `evaluate/` of 40 responses."""
    (folder / "evaluate").mkdir(parents=True)
    rows = [
        {
            "set": "in_distribution",
            "prompt": f"p{place}",
            "response": "some fine words",
            "judge_toxicity": level,
            "reference_nll": 30.0,
            "response_tokens": 10,
            "relevance": 0.2,
        }
        for place in range(40)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluate" / "samples.jsonl").write_text(lines)
    sets = {"in_distribution": {"distinct_2": 0.9}}
    summary = {"models": [{"name": "m", "sets": sets}]}
    (folder / "evaluate" / "summary.json").write_text(json.dumps(summary))


def test_each_condition_has_its_own_base(tmp_path):
    for name, before, after in (("own", 0.4, 0.1), ("chat", 0.1, 0.09)):
        write_judged(tmp_path / name / "base", before)
        write_judged(tmp_path / name / "seed0", after)
    write_judged(tmp_path / "hot" / "base", 0.5)  # no seed yet
    write_report(tmp_path, conditions("data"))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 4
    assert "| 0.400 | -75 % [-75, -75] | none before |" in lines[2]
    assert "| 0.100 | -10 % [-10, -10] |" in lines[3]
    assert "some fine words" in (tmp_path / "samples.md").read_text()
