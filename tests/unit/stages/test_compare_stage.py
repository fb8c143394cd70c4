"""stage=compare from the command line: page, numbers, refusals, and nothing heavy."""

import json
import subprocess
import sys

import pytest

from lora_detox import api
from lora_detox.errors import SettingsError
from tests.finished import rising, write_evaluated, write_trained

LIGHT = """
import sys
from lora_detox.__main__ import main
status = main()
heavy = {"torch", "transformers", "peft", "datasets"} & sys.modules.keys()
print("STATUS", status, "HEAVY", sorted(heavy))
"""


@pytest.fixture
def runs(tmp_path):
    return [
        write_trained(tmp_path / "a", rising(0.1, 0.3)),
        write_trained(tmp_path / "b", rising(0.2, 0.5), nll=8.0, overrides=("seed=1",)),
        write_evaluated(tmp_path / "e", {"base": 0.6, "<b>one</b>": {0: 0.6, 1: 0.05}}),
    ]


def comparing(*folders):
    return ["stage=compare", f"runs=[{','.join(map(str, folders))}]"]


def test_one_page_one_table_and_the_numbers(runs, tmp_path, capsys):
    edited = json.loads((runs[1] / "summary.json").read_text())
    edited["task"] = "gptj_continuation"
    (runs[1] / "summary.json").write_text(json.dumps(edited))
    summary = api.run(comparing(*runs), tmp_path / "out")
    assert [one["name"] for one in summary["candidates"]] == [
        "e: <b>one</b> at strength 1",
        "a",
        "b",
    ]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "&lt;b&gt;one&lt;/b&gt; at strength 1 is the least toxic" in page
    assert "<b>one" not in page
    assert "Settings that differ" in page
    printed = capsys.readouterr().out
    assert summary["verdict"][0][:20] in printed
    assert "differs: seed" in printed or "settings differ" in printed
    assert str(tmp_path / "out" / "compare.html") in printed


def test_it_loads_no_pytorch(runs, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *comparing(*runs[:2]), f"hydra.run.dir={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "STATUS 0 HEAVY []", done.stdout + done.stderr
    assert (tmp_path / "out" / "compare.html").is_file()


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["stage=compare"], r"runs: got \[\]; stage=compare wants folders"),
        (["stage=compare", "runs=[nowhere]"], "runs: there is no folder nowhere"),
        (["stage=compare", "runs=a"], "a list has brackets"),
    ],
)
def test_bad_runs_are_refused_before_anything_is_written(overrides, pattern, tmp_path):
    with pytest.raises(SettingsError, match=pattern):
        api.run(overrides, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_result_alone_is_nothing_to_compare(runs, tmp_path):
    with pytest.raises(SettingsError, match="runs: got one result to compare, a; want two or more"):
        api.run(comparing(runs[0]), tmp_path / "out")
