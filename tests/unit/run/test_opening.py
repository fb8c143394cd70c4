"""What a user may not have meant is said in one line before a run begins."""

import pytest

from lora_detox.api import compose_settings
from lora_detox.run.build import open_job

SMOKE = ["debug=smoke", "data.limit=60", "threads=1"]


def first_lines(overrides, tmp_path, capsys):
    with open_job(compose_settings([*SMOKE, *overrides], tmp_path / "run")) as job:
        sizes = len(job.data.validation), len(job.data.test)
    return capsys.readouterr().out.splitlines(), sizes


@pytest.mark.parametrize(
    ("task", "miniature", "expected"),
    [
        ("gptj_continuation", "t5", "encoder-decoder policy answers the prompt"),
        ("flan_summary", "gptj", "decoder-only policy goes on writing"),
        ("gptj_continuation", "gptj", None),
        ("flan_summary", "t5", None),
    ],
)
def test_a_policy_of_the_other_family_is_noted(task, miniature, expected, tmp_path, capsys):
    overrides = [f"task={task}", f"task.miniature={miniature}", "evaluation.test_prompts=8"]
    lines, _ = first_lines([*overrides, "evaluation.validation_prompts=8"], tmp_path, capsys)
    notes = [line for line in lines if line.startswith("note ")]
    assert len(notes) == (expected is not None)
    assert not expected or expected in notes[0]


def test_fewer_prompts_than_asked_for_are_noted(tmp_path, capsys):
    overrides = ["evaluation.test_prompts=5000", "evaluation.validation_prompts=61"]
    lines, (validation, test) = first_lines(overrides, tmp_path, capsys)
    notes = "\n".join(line for line in lines if line.startswith("note "))
    assert f"evaluation.test_prompts=5000, but the test split has {test} prompts" in notes
    assert f"evaluation.validation_prompts=61, but the validation split has {validation}" in notes
