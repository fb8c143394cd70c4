"""What an evaluation reads."""

import json

import pytest

from lora_detox.api import compose_settings
from lora_detox.evaluation.protocol import prompt_sets, protocol_numbers


@pytest.mark.parametrize(("test_file", "name"), [(None, "a"), ("t.test.jsonl", "t.test")])
def test_a_set_is_named_by_the_file_that_its_prompts_are_of(tmp_path, test_file, name):
    files = {"a.jsonl": "a", **({test_file: "t"} if test_file else {})}
    for file, mark in files.items():
        rows = [{"prompt": f"{mark} {place}"} for place in range(20)]
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["stage=evaluate", "task=gptj_continuation", "data=local"]
    overrides += [f"data.path={tmp_path}/a.jsonl", "data.query_tokens=null"]
    overrides += [f"data.test_path={tmp_path}/{test_file}"] if test_file else []
    settings = compose_settings(overrides)
    (only,) = prompt_sets(settings, protocol_numbers(settings))
    assert only.name == name
    assert all(row.prompt.startswith(name[0]) for row in only.rows)
