"""Columns beside the fields go with their rows, from every kind of file."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from lora_detox.prompts import load_prompt_sets

ROWS = [
    {"prompt": f"prompt {n}", "Group": "women", "meta": {"axis": "gender"}, "n": n, "empty": None}
    for n in range(20)
]


def write(folder, kind):
    file = folder / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        lines = [f"{row['prompt']},women,{row['n']}," for row in ROWS]
        file.write_text("\n".join(["prompt,Group,n,empty", *lines]) + "\n")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    return str(file)


def load(path, columns, **rules):
    return load_prompt_sets(path=path, fields={"prompt": "prompt"}, columns=columns, **rules).test


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_named_columns_go_along_in_any_case(kind, tmp_path):
    for row in load(write(tmp_path, kind), ["group", "empty", "absent"]):
        assert row.columns == {"group": "women"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_nested_columns_and_numbers(kind, tmp_path):
    row = load(write(tmp_path, kind), ["meta.axis", "n"])[0]
    assert row.columns == {"meta.axis": "gender", "n": int(row.prompt.split()[1])}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_star_is_every_column_but_the_fields(kind, tmp_path):
    row = load(write(tmp_path, kind), ["*"])[0]
    n = int(row.prompt.split()[1])
    assert row.columns == {"Group": "women", "meta": {"axis": "gender"}, "n": n}


def test_no_column_goes_along_unless_it_is_named(tmp_path):
    assert load(write(tmp_path, "jsonl"), [])[0].columns == {}


def test_columns_come_back_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_DETOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lora_detox.prompts.load._WORTH_CACHING_SECONDS", 0.0)
    path = write(tmp_path, "jsonl")
    first, second = (load(path, ["*"]) for _ in range(2))
    assert list((tmp_path / "cache").rglob("*.parquet"))
    assert first == second
    assert second[0].columns["meta"] == {"axis": "gender"}


def test_a_carried_name_makes_no_table_of_a_text_file(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("group\n" + "".join(f"line {n}\n" for n in range(20)))
    sets = load_prompt_sets(path=str(file), fields={"prompt": "text"}, columns=["group"])
    assert sum(map(len, (sets.train, sets.validation, sets.test))) == 21
