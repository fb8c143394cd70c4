"""Files that want more memory than there is, or more stack: an error, or read without holding."""

import gzip
import json
import tracemalloc
import zipfile
from dataclasses import replace
from random import Random

import pytest

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets, reading
from lora_detox.prompts.rows import MIB

FIELDS = {"prompt": "prompt|text", "toxicity": "toxicity", "id": "id"}
PLAIN = {"prompt": "prompt|text"}


def _peak(call):
    tracemalloc.start()
    try:
        outcome = call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return outcome, peak


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "txt"])
@pytest.mark.parametrize("limit", [None, 10])
def test_a_gzip_bomb_of_one_line_is_an_error(tmp_path, kind, limit):
    path = tmp_path / f"bomb.{kind}.gz"
    path.write_bytes(gzip.compress(b'prompt\n{"prompt": "' + b"a" * (64 * MIB)))
    assert path.stat().st_size < MIB

    def read():
        with pytest.raises(DataError, match=r"data\.max_line_mb") as caught:
            load_prompt_sets(path=str(path), fields=PLAIN, limit=limit, max_line_mb=2)
        return str(caught.value)

    message, peak = _peak(read)
    assert "2 MiB" in message
    assert peak < 40 * MIB


def test_a_record_that_no_quote_ends_costs_no_more_than_a_line_may(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,id\n"' + ("x" * 1000 + "\n") * 8000)
    with pytest.raises(DataError):
        load_prompt_sets(path=str(path), fields=PLAIN, max_line_mb=1)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_rows_that_do_not_fit_name_the_limit(tmp_path, suffix):
    rows = [{"prompt": f"Number {number}."} for number in range(20_000)]
    path = tmp_path / f"many.{suffix}.gz"
    text = json.dumps(rows * 20) if suffix == "json" else "\n".join(map(json.dumps, rows))
    if suffix == "csv":
        text = "prompt\n" + "\n".join(row["prompt"] for row in rows)
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=r"data\.max_total_mb"):
        load_prompt_sets(path=str(path), fields=PLAIN, max_total_mb=4)


def test_a_limit_bounds_what_is_held(tmp_path):
    path = tmp_path / "many.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for number in range(60_000):
            file.write(json.dumps({"prompt": f"Say {number}", "more": "x" * 300}) + "\n")
    sets, peak = _peak(lambda: load_prompt_sets(path=str(path), fields=PLAIN, limit=50))
    assert sets.report.read == 60_000
    assert [len(getattr(sets, one)) for one in ("train", "validation", "test")] == [50] * 3
    assert peak < 4 * MIB


def _write_sources(folder, seed):
    """One to three files of rows, some with the prompts of others, some bad."""
    random, paths = Random(seed), {}
    for key in ("path", "validation_path", "test_path")[: 1 + seed % 3]:
        rows = []
        for _ in range(random.randint(150, 400)):
            row = {"prompt": f"Text {random.randint(0, 200)}", "id": random.randint(0, 9)}
            if random.random() < 0.9:
                row["toxicity"] = random.choice([None, random.random()])
            rows.append(random.choice(["no JSON", '{"prompt": ""}', *[json.dumps(row)] * 20]))
        paths[key] = str(folder / f"{key}.jsonl")
        (folder / f"{key}.jsonl").write_text("\n".join(rows))
    return paths


@pytest.mark.parametrize("seed", range(12))
def test_rows_read_one_by_one_are_chosen_as_if_all_were_held(tmp_path, monkeypatch, seed):
    paths = _write_sources(tmp_path, seed)
    outcomes = []
    for is_large in (True, False):
        monkeypatch.setattr(reading, "is_large", lambda source, answer=is_large: answer)
        outcomes.append(
            load_prompt_sets(
                **paths,
                fields=FIELDS,
                limit=1 + 3 * seed,
                min_toxicity=None if seed % 2 else 0.3,
                cache=False,
            )
        )
    streamed, held = outcomes
    assert [streamed.train, streamed.validation, streamed.test] == [
        held.train,
        held.validation,
        held.test,
    ]
    # Of the bad rows those of later splits are named first.
    first, second = (replace(one.report, bad_examples=()) for one in outcomes)
    assert first == second


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"prompt": ' + DEEP + "}"),
        ("a.json", '[{"prompt": ' + DEEP + "}]"),
        ("a.json", DEEP),
        ("a.jsonl", DEEP),
        ("a.csv", 'prompt\n"' + DEEP + '"'),
        ("a.jsonl", '{"prompt": ' + "[" * 900 + "]" * 900 + "}"),
        ("a.jsonl", "[1]\n[2]"),
        ("a.json", "[1]\n[2]"),
    ],
)
def test_nesting_without_end_is_an_error_of_the_data(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    try:
        sets = load_prompt_sets(path=str(tmp_path / name), fields=PLAIN)
    except DataError:
        return
    assert [one.prompt for one in sets.train] == [DEEP]  # a text, as CSV has it


def test_a_row_that_is_too_deep_is_a_bad_row_among_good_ones(tmp_path):
    good = [json.dumps({"prompt": f"Text {n}"}) for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join([*good, '{"prompt": ' + DEEP + "}"]))
    sets = load_prompt_sets(path=str(tmp_path / "a.jsonl"), fields=PLAIN)
    assert sets.report.bad == 1
    assert "a.jsonl:31: nested too deeply" in sets.report.bad_examples


SHEET = "<worksheet><sheetData>{}</sheetData></worksheet>"


@pytest.mark.parametrize(
    "rows",
    [
        '<row r="1"><c r="ZZZZZZZZZZ1" t="inlineStr"><is><t>prompt</t></is></c></row>',
        '<row r="x"><c r="A1"><v>1</v></c></row>',
        '<row r="1"><c r="A1" t="s"><v>9</v></c></row>',
        '<row r="1"><c r="A1" t="inlineStr">' + "<is>" * 5000 + "</is>" * 5000 + "</c></row>",
        "a" * (2 * MIB),
    ],
)
def test_a_hostile_workbook_is_an_error_of_the_data(tmp_path, rows):
    path = tmp_path / "a.xlsx"
    link = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/workbook.xml", f'<workbook xmlns:r="{link}"><sheet r:id="a"/></workbook>')
        book.writestr(
            "xl/_rels/workbook.xml.rels", '<a><b Id="a" Target="worksheets/sheet1.xml"/></a>'
        )
        book.writestr("xl/worksheets/sheet1.xml", SHEET.format(rows))
    with pytest.raises(DataError):
        load_prompt_sets(path=str(path), fields=PLAIN, max_total_mb=4)


@pytest.mark.parametrize("encoding", ["base64", "rot13", "no such", "a\0b", "zlib"])
def test_a_name_that_is_no_encoding(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match=r"data\.encoding"):
        load_prompt_sets(path=str(tmp_path / "a.txt"), fields=PLAIN, encoding=encoding)
