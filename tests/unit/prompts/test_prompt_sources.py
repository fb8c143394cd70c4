"""Reading rows: formats, folders, bad rows, columns, missing sources."""

import csv
import gzip
import json
import time

import datasets
import pytest

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

ROWS = [{"prompt": f"prompt number {i}", "toxicity": i / 40} for i in range(40)]
FIELDS = {"prompt": "prompt"}


def all_prompts(sets):
    return sorted(row.prompt for row in sets.train + sets.validation + sets.test)


EXPECTED = sorted(row["prompt"] for row in ROWS)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_jsonl(write_rows, name):
    assert all_prompts(load_prompt_sets(path=write_rows(name, ROWS), fields=FIELDS)) == EXPECTED


@pytest.mark.parametrize("content", [ROWS, {"data": ROWS}])
@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
def test_json(tmp_path, content, name):
    raw = json.dumps(content).encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert all_prompts(load_prompt_sets(path=str(tmp_path / name), fields=FIELDS)) == EXPECTED


def test_json_lines_under_a_json_name(write_rows):
    assert all_prompts(load_prompt_sets(path=write_rows("a.json", ROWS), fields=FIELDS)) == EXPECTED


def test_csv_with_line_breaks_in_cells_and_a_short_row(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "toxicity"])
        writer.writerow(["two\nlines", "0.5"])
        file.write("only one cell\r\n")
        writer.writerow(["later", ""])
    sets = load_prompt_sets(path=str(path), fields={"prompt": "prompt", "toxicity": "toxicity"})
    assert all_prompts(sets) == ["later", "two\nlines"]
    assert sets.report.bad_examples == ("rows.csv:4: 1 cells, want 2",)


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(ROWS).to_parquet(str(path))
    assert all_prompts(load_prompt_sets(path=str(path), fields=FIELDS)) == EXPECTED


def test_nested_columns_and_references(write_rows):
    rows = [
        {"prompt": {"text": "a", "toxicity": 0.9}, "refs": ["x", "y"], "id": 7},
        {"prompt": {"text": "b", "toxicity": None}, "refs": "z", "id": None},
        {"prompt": {"text": "c"}, "refs": None, "id": "r3"},
    ]
    fields = {
        "prompt": "prompt.text",
        "references": "missing|refs",
        "toxicity": "prompt.toxicity",
        "id": "id",
    }
    path = write_rows("rows.jsonl", rows)
    sets = load_prompt_sets(path=path, fields=fields, split_fractions=(1.0, 0.0, 0.0))
    by_prompt = {row.prompt: row for row in sets.train}
    assert by_prompt["a"].references == ["x", "y"]
    assert by_prompt["a"].row_id == "7"
    assert by_prompt["a"].toxicity == 0.9
    assert by_prompt["b"].references == ["z"]
    assert by_prompt["b"].row_id == "rows.jsonl:2"
    assert by_prompt["b"].toxicity is None
    assert by_prompt["c"].references == []


BAD_LINES = [
    "{broken",
    '"just a string"',
    '{"prompt": "   "}',
    '{"prompt": 5}',
    '{"prompt": null}',
    '{"prompt": "\\ud800 alone"}',
    '{"prompt": "fine", "toxicity": "high"}',
]


def test_bad_rows_are_counted_named_and_skipped(write_rows):
    path = write_rows("rows.jsonl", [*ROWS, *BAD_LINES])
    fields = {"prompt": "prompt", "toxicity": "toxicity"}
    sets = load_prompt_sets(path=path, fields=fields)
    assert all_prompts(sets) == EXPECTED
    assert sets.report.bad == len(BAD_LINES)
    assert sets.report.read == len(ROWS) + len(BAD_LINES)
    assert sets.report.bad_examples[0].startswith("rows.jsonl:41: no JSON")
    text = sets.report.describe()
    assert "7 bad rows" in text
    assert "rows.jsonl:43: the prompt is blank" in text


def test_bytes_that_are_no_utf8_are_bad_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n{"prompt": "\xff\xfe"}\n')
    sets = load_prompt_sets(path=str(path), fields=FIELDS)
    assert sets.report.bad == 1
    table = tmp_path / "rows.csv"
    table.write_bytes(b"prompt\nfine\n\xff\xfe\n")
    assert load_prompt_sets(path=str(table), fields=FIELDS).report.bad == 1


def test_more_bad_rows_than_the_limit(write_rows):
    path = write_rows("rows.jsonl", [*ROWS, *BAD_LINES])
    with pytest.raises(DataError, match=r"more than 3 bad rows.*rows\.jsonl:41.*bad_row_limit"):
        load_prompt_sets(path=path, fields={**FIELDS, "toxicity": "toxicity"}, bad_row_limit=3)


def test_wrong_column_lists_the_columns_found(write_rows):
    path = write_rows("rows.jsonl", [{"text": "a", "score": {"toxicity": 1}}])
    with pytest.raises(DataError, match=r"text, score\.toxicity.*`data\.fields\.prompt`"):
        load_prompt_sets(path=path, fields=FIELDS, bad_row_limit=0)
    with pytest.raises(DataError, match=r"`summary` for the references.*data\.fields\.references"):
        load_prompt_sets(path=path, fields={"prompt": "text", "references": "summary"})


def test_alternatives_are_guesses(write_rows):
    """One file of defaults serves local files with and without references."""
    guesses = {
        "prompt": "prompt|dialogue",
        "references": "summaries|summary",
        "toxicity": "toxicity|prompt.toxicity",
        "id": "id",
    }
    path = write_rows("rows.jsonl", [{"dialogue": "a"}, {"dialogue": "b"}])
    sets = load_prompt_sets(path=path, fields=guesses, split_fractions=(1.0, 0.0, 0.0))
    assert [(row.prompt, row.references) for row in sets.train] == [("a", []), ("b", [])]
    with pytest.raises(DataError, match=r"toxicity.*`data\.fields\.toxicity`"):
        load_prompt_sets(path=path, fields=guesses, min_toxicity=0.3)
    with pytest.raises(DataError, match=r"columns found: dialogue; .*`data\.fields\.prompt`"):
        load_prompt_sets(path=path, fields={"prompt": "prompt|text"})


def test_unknown_and_missing_fields(write_rows):
    path = write_rows("rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"unknown fields promt.*data\.fields"):
        load_prompt_sets(path=path, fields={"prompt": "prompt", "promt": "x"})
    with pytest.raises(DataError, match=r"data\.fields\.prompt"):
        load_prompt_sets(path=path, fields={"prompt": None})


@pytest.mark.parametrize(
    "path", ["nowhere.jsonl", "/no/such/place", "./a/b/c", "~/none.csv", "https://x.org/a"]
)
def test_missing_local_file(path):
    with pytest.raises(DataError, match=r"no such file or folder.*`data\.path`"):
        load_prompt_sets(path=path, fields=FIELDS)


def test_missing_validation_file_names_its_key(write_rows):
    path = write_rows("rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"none\.jsonl.*`data\.validation_path`"):
        load_prompt_sets(path=path, validation_path="none.jsonl", fields=FIELDS)


def test_unreadable_files(tmp_path):
    (tmp_path / "notes.docx").write_text("hello")
    with pytest.raises(DataError, match=r"no kind of data file.*\.jsonl"):
        load_prompt_sets(path=str(tmp_path / "notes.docx"), fields=FIELDS)
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 99)[:-20])
    with pytest.raises(DataError, match=r"cannot read the data file.*torn\.jsonl\.gz"):
        load_prompt_sets(path=str(tmp_path / "torn.jsonl.gz"), fields=FIELDS)
    (tmp_path / "no.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"cannot read the data file.*no\.parquet"):
        load_prompt_sets(path=str(tmp_path / "no.parquet"), fields=FIELDS)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.jsonl.gz"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(DataError, match=r"no usable row.*`data\.path`"):
        load_prompt_sets(path=str(tmp_path / name), fields=FIELDS)


def test_folder_with_split_names(write_rows, tmp_path):
    write_rows("data/toy.train-00000-of-00002.jsonl", ROWS[:10])
    write_rows("data/toy.train-00001-of-00002.jsonl", ROWS[10:20])
    write_rows("data/toy.dev.jsonl.gz", ROWS[20:25])
    write_rows("data/toy.test.jsonl", ROWS[25:30])
    (tmp_path / "data" / "README.md").write_text("about")
    for folder in (tmp_path / "data", tmp_path):
        sets = load_prompt_sets(path=str(folder), fields=FIELDS)
        assert sets.report.sizes == {"train": 20, "validation": 5, "test": 5}


def test_folder_with_several_data_sets(write_rows, tmp_path):
    write_rows("dialogs.train.jsonl", ROWS)
    write_rows("tweets.train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"several data sets \(dialogs, tweets\).*data\.path"):
        load_prompt_sets(path=str(tmp_path), fields=FIELDS)


def test_folder_saved_by_datasets(tmp_path):
    dataset = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": dataset, "test": dataset.select(range(4))}).save_to_disk(
        str(tmp_path / "saved")
    )
    sets = load_prompt_sets(path=str(tmp_path / "saved"), fields=FIELDS)
    assert len(sets.test) == 4
    assert sets.report.overlap_removed == 4
    assert len(sets.train) + len(sets.validation) == 36


def test_script_data_set_is_refused(tmp_path):
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("raise SystemExit")
    with pytest.raises(DataError, match=r"loading script.*parquet, jsonl or csv"):
        load_prompt_sets(path=str(tmp_path / "scripted"), fields=FIELDS)


def test_unreachable_hub_fails_fast_and_says_how_to_go_local(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"no-one/nothing-here.*data=local data\.path=FILE"):
        load_prompt_sets(path="no-one/nothing-here", fields=FIELDS)
    assert time.monotonic() - start < 10


def test_connection_failure_does_not_retry_for_half_a_minute(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    with pytest.raises(DataError, match=r"cannot reach the Hugging Face hub.*data=local"):
        load_prompt_sets(path="no-one/nothing-here", fields=FIELDS)


@pytest.fixture
def hub(monkeypatch):
    """A hub that has one data set, with the splits it is given."""

    def serve(splits):
        asked = {}

        def load_dataset(path, *, name, revision):
            asked.update(path=path, name=name, revision=revision)
            return datasets.DatasetDict(
                {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
            )

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def test_hub_data_set_with_nested_columns(hub):
    rows = [{"prompt": {"text": f"p{i}", "toxicity": i / 99}, "junk": i} for i in range(99)]
    asked = hub({"train": rows})
    fields = {"prompt": "prompt.text", "toxicity": "prompt.toxicity"}
    sets = load_prompt_sets(
        path="allenai/rtp", config_name="plain", revision="v1", fields=fields, min_toxicity=0.5
    )
    assert asked == {"path": "allenai/rtp", "name": "plain", "revision": "v1"}
    assert len(sets.train + sets.validation + sets.test) == 49
    assert sets.train[0].row_id.startswith("train:")


def test_hub_split_names(hub):
    hub({"train": ROWS[:20], "dev": ROWS[20:30], "held_out": ROWS[30:]})
    names = ("train", "validation", "held_out")
    sets = load_prompt_sets(path="o/n", split_names=names, fields=FIELDS)
    assert sets.report.sizes == {"train": 20, "validation": 10, "test": 10}
    hub({"a": ROWS, "b": ROWS})
    with pytest.raises(DataError, match=r"has the splits a, b, want train.*data\.split_names"):
        load_prompt_sets(path="o/n", fields=FIELDS)


def test_embedded_sources():
    fields = {"prompt": "dialogue", "references": "summaries", "toxicity": "toxicity", "id": "id"}
    sets = load_prompt_sets(path="embedded:dialogues", fields=fields, limit=20)
    assert sets.report.sizes == {"train": 20, "validation": 20, "test": 20}
    assert all(row.references for row in sets.test)
    with pytest.raises(DataError, match=r"embedded:dialogues, embedded:comments.*data\.path"):
        load_prompt_sets(path="embedded:poems", fields=fields)
