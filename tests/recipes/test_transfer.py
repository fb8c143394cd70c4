"""Conditions of use compose, and the table compares each with its own base."""

from lora_detox.api import compose_settings
from recipes.lab.real import RealModels
from recipes.transfer import run as transfer
from recipes.transfer.conditions import conditions
from recipes.transfer.table import write_report
from tests.recipes.judged_runs import write_judged


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


def test_each_condition_has_its_own_base(tmp_path):
    for name, before, after in (("own", 0.4, 0.1), ("chat", 0.1, 0.09)):
        write_judged(tmp_path / name / "base", before)
        write_judged(tmp_path / name / "seed0", after)
    write_judged(tmp_path / "hot" / "base", 0.5)  # no seed yet
    write_report(tmp_path, conditions("data"))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 4
    assert "| 0.400 | -75 % [-75, -75] | 0.0 -> 0.0 % [0.0, 0.0] |" in lines[2]
    assert "| 0.100 | -10 % [-10, -10] |" in lines[3]
    assert "some fine words" in (tmp_path / "samples.md").read_text()
