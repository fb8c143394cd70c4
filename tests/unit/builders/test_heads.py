"""The first rows of files show the errors that the full reading would raise, without PyTorch."""

import gzip
import json
import subprocess
import sys

import pyarrow
import pytest
from pyarrow import parquet

from lora_detox import api
from lora_detox.builders.rows import check_heads, load_data
from lora_detox.errors import DataError
from lora_detox.prompts import heads
from tests.unit.builders.test_naming import READERS

ROWS = [{"text": f"words {n}", "label": n % 2, "summary": "s"} for n in range(60)]
CIVIL = {"text": "later", "prompt": "a later column", "label": 0}


def write(folder, name, rows):
    """A file of rows, of the kind that its name says."""
    path = folder / name
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name.endswith(".csv"):
        cells = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(cells))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        lines = "\n".join(map(json.dumps, rows)).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    return path


def settings_of(tmp_path, *overrides):
    return api.compose_settings(list(overrides), tmp_path / "run")


def error_of(function, settings):
    with pytest.raises(DataError) as caught:
        function(settings)
    return str(caught.value)


@pytest.mark.parametrize("key", [key for key in READERS if key != "evaluation.sets.more.path"])
@pytest.mark.parametrize("content", ["a,b\n1,2\n", "text,label\n", "", '"open\nand no end'])
def test_a_head_raises_what_the_reader_of_each_key_would(key, content, tmp_path):
    overrides, read = READERS[key]
    path = tmp_path / "some.csv"
    path.write_text(content)
    audited = ["stage=evaluate"] if key.startswith("evaluation.") else []
    settings = settings_of(tmp_path, *overrides, *audited, f"{key}='{path}'")
    assert error_of(check_heads, settings) == error_of(read, settings)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.jsonl.gz", "d.json", "d.parquet"])
@pytest.mark.parametrize(
    ("field", "stage"), [("prompt", "detox"), ("references", "sft"), ("toxicity", "reward_model")]
)
def test_every_field_of_every_kind_of_file_is_looked_for(name, field, stage, tmp_path):
    names = {"prompt": "text", "references": "summary", "toxicity": "label"} | {field: "labell"}
    fields = [f"data.fields.{key}={column}" for key, column in names.items()]
    path = write(tmp_path, name, ROWS)
    settings = settings_of(tmp_path, f"stage={stage}", "data=local", f"data.path='{path}'", *fields)
    message = error_of(check_heads, settings)
    assert "no row has the column `labell`" in message
    assert f"`data.fields.{field}`" in message
    # Of Parquet only columns that a setting names are decoded and listed.
    assert "did you mean `label`?" in message or name == "d.parquet"


def test_a_set_of_its_own_names_its_keys(tmp_path):
    path = write(tmp_path, "d.csv", ROWS)
    sets = ["stage=evaluate", "evaluation.protocol=three_sets", "+data@evaluation.sets.more=local"]
    settings = settings_of(
        tmp_path,
        *sets,
        f"evaluation.sets.more.path='{path}'",
        "evaluation.sets.more.fields.prompt=x",
    )
    assert "change `evaluation.sets.more.fields.prompt`" in error_of(check_heads, settings)


def test_bad_first_lines_are_passed_over_and_bad_files_are_not(tmp_path):
    path = write(tmp_path, "d.jsonl", ROWS)
    settings = settings_of(tmp_path, "data=local", f"data.path='{path}'")
    path.write_text('{"text": \n' * 3 + path.read_text())
    check_heads(settings)
    path.write_text('{"text": \n' * 300)
    assert error_of(check_heads, settings) == error_of(load_data, settings)


def test_a_column_of_a_later_line_is_left_to_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(heads, "_MOST_ROWS", 20)
    path = write(tmp_path, "d.jsonl", [*ROWS, *([CIVIL] * 3)])
    settings = settings_of(
        tmp_path, "data=local", f"data.path='{path}'", "data.fields.prompt=prompt"
    )
    check_heads(settings)
    assert len(load_data(settings).train) > 0
    table = write(tmp_path, "d.csv", ROWS)  # of which the first line names every column
    settings.data.path = str(table)
    assert error_of(check_heads, settings) == error_of(load_data, settings)
    settings.data.fields.prompt = "text"
    check_heads(settings)


def test_a_head_reads_no_more_than_it_needs(tmp_path):
    path = write(tmp_path, "d.jsonl", ROWS * 3)
    with path.open("a") as file:
        file.write("\n" + "x" * (2 << 20))  # a line that the reader refuses
    settings = settings_of(tmp_path, "data=local", f"data.path='{path}'", "data.max_line_mb=1")
    check_heads(settings)
    assert "data.max_line_mb" in error_of(load_data, settings)


LIGHT = """
import sys
from lora_detox.__main__ import main
status = main()
heavy = {"torch", "transformers", "peft", "datasets", "scipy", "pandas"} & sys.modules.keys()
print("STATUS", status, "HEAVY", sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["data=local", "data.fields.prompt=txet"],
        ["stage=evaluate", "evaluation.audit=d.csv"],
        ["stage=evaluate", "decoding=direction", "decoding.examples=d.csv"],
        ["stage=reward_model", "data=embedded_labelled", "reward_model.test_sets.more=d.csv"],
    ],
)
def test_a_wrong_column_is_told_before_pytorch_is_imported(arguments, tmp_path):
    write(tmp_path, "d.csv", [{"text": "some", "summary": "s"}])
    local = ["data.path=d.csv"] if "data=local" in arguments else []
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments, *local],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "STATUS 2 HEAVY []", done.stdout + done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "d.csv"]
