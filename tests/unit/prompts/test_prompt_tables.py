"""Tables as text: quotes, delimiters, encodings, line ends, columns that stand twice."""

import csv
import gzip
import io
import json
import re

import pyarrow
import pytest
from datasets import Dataset
from pyarrow import feather, parquet

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

FIELDS = {
    "prompt": "prompt|dialogue",
    "references": "summaries|summary",
    "toxicity": "toxicity|prompt.toxicity",
    "id": "id",
}
ALL_TO_TRAIN = (1.0, 0.0, 0.0)


@pytest.fixture
def read(tmp_path):
    """Write a file (text as UTF-8) and read it; returns rows by id and the report."""

    def write_and_read(name, content, **rules):
        raw = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        rules = {"fields": FIELDS, "split_fractions": ALL_TO_TRAIN, **rules}
        sets = load_prompt_sets(path=str(path), cache=False, **rules)
        return {row.row_id: row for row in sets.train}, sets.report

    return write_and_read


def table(rows, **dialect):
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows([["id", "dialogue", "summary"], *rows])
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_never_closed_costs_its_line(read, name, end):
    lines = [
        f"{i},{chr(34) if i == 5 else ''}Person {i}: you are late,sum {i}" for i in range(1000)
    ]
    rows, report = read(name, end.join(["id,dialogue,summary", *lines, ""]))
    assert len(rows) == 999
    assert report.bad_examples == (f"{name}:7: the quote that opens in this line is never closed",)
    assert rows["999"].references == ["sum 999"]


@pytest.mark.parametrize(
    "later",
    [
        '9,"Person 9, you",sum',  # another quoted cell
        '9,", hello",sum',  # one that begins with a delimiter
        '9,Person 9 is 5" tall,sum',  # a quote in plain text
        '9,so tall: 5",sum',  # one that could close the other
        '9,"He said ""hi"" to me",sum',
        '9,"two\nlines, of text",sum',
    ],
)
def test_an_unclosed_quote_before_other_quotes(read, later):
    lines = [f"{i},Person {i}: late,sum {i}" for i in range(30)]
    lines[3], lines[9] = '3,"Person 3: late,sum 3', later
    rows, report = read("a.csv", "\n".join(["id,dialogue,summary", *lines]))
    assert set(rows) == {str(i) for i in range(30)} - {"3"}
    assert report.bad_examples[0].startswith("a.csv:5: the quote that opens in this line")


def test_an_unclosed_quote_in_the_last_line_and_inside_a_long_cell(read):
    content = (
        'id,dialogue,summary\n1,"A: hi\nB: bye",s\n2,"A: hi\nB: ""no""","lost\n3,"C: x",s\n4,"D,s'
    )
    rows, report = read("a.csv", content)
    assert rows["1"].prompt == "A: hi\nB: bye"
    assert set(rows) == {"1", "3"}
    assert [example.partition(": ")[0] for example in report.bad_examples] == ["a.csv:5", "a.csv:7"]


def test_cells_of_many_lines_with_quotes_and_delimiters_stay_whole(read):
    dialogues = [
        "\n".join(f'#Person{j % 2}#: well, "{j}", you, {i}' for j in range(50 * i + 1))
        for i in range(20)
    ]
    poem = "a, b, c\n" * 3 + "d"
    rows, report = read(
        "a.csv", table([[i, text, f"s, {i}"] for i, text in enumerate([*dialogues, poem])])
    )
    assert [rows[str(i)].prompt for i in range(21)] == [*dialogues, poem]
    assert report.bad == 0


def test_a_cell_of_very_many_lines_stays_whole(read):
    text = "\n".join(["a, b"] * 8000)
    rows, report = read("a.csv", "id,dialogue\n" + f'1,"{text}"\n2,later\n')
    assert rows["1"].prompt == text
    assert set(rows) == {"1", "2"}
    assert report.bad == 0


def test_a_record_with_a_cell_too_many_is_one_bad_row(read):
    rows, report = read("a.csv", table([[1, "A: hi\nB: you\nC: no", "s", "more"], [2, "b", "s"]]))
    assert set(rows) == {"2"}
    assert report.bad_examples == ("a.csv:2: 4 cells, want 3",)


def test_quotes_that_are_not_doubled_are_text(read):
    content = 'id,dialogue,summary\n1,"He said "hi" to me",s\n2,"a ""b"" "c" d",s\n3,5" tall,s\n'
    rows, _ = read("a.csv", content)
    assert [rows[i].prompt for i in "123"] == ['He said "hi" to me', 'a "b" "c" d', '5" tall']


def test_a_row_of_several_lines_without_its_closing_quote_is_one_bad_row(read):
    lines = [f'{i},"Person {i}:\nyes, late{"" if i == 5 else chr(34)},s\n' for i in range(300)]
    rows, report = read("a.csv", "id,dialogue,summary\n" + "".join(lines))
    assert set(rows) == {str(i) for i in range(300)} - {"5"}
    assert report.bad == 1


def test_quotes_marked_by_a_backslash(read):
    texts = ['say \\"hi\\", no', '\\"hi\\"', 'end \\"', 'a, \\"b', 'c \\", d']
    lines = [f'{i},"{text}",s\n' for i, text in enumerate(texts)]
    rows, report = read("a.csv", "id,dialogue,summary\n" + "".join(lines))
    assert [rows[str(i)].prompt for i in range(5)] == [text.replace("\\", "") for text in texts]
    assert report.bad == 0


def test_old_mac_lines_around_cells_with_other_line_ends(read):
    lines = "".join(f'{i},"a\r\nb {i}",s\r' for i in range(50))
    rows, report = read("a.csv", "id,dialogue,summary\r" + lines)
    assert rows["7"].prompt == "a\r\nb 7"
    assert report.bad == 0


def test_many_unclosed_quotes_take_linear_time(read):
    lines = [f'{i},"Person {i}: you are late,sum {i}' for i in range(20_000)]
    with pytest.raises(DataError, match=r"all 1101 rows that were read fail alike.*never closed"):
        read("a.csv", "\n".join(["id,dialogue,summary", *lines]))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.csv.gz"])
def test_delimiters_are_told_by_the_line_of_names(read, name, delimiter):
    cells = [[i, f"a, b; c | d\te {i}", f"sum, {i}"] for i in range(5)]
    rows, report = read(name, table(cells, delimiter=delimiter))
    assert rows["3"].prompt == "a, b; c | d\te 3"
    assert rows["3"].references == ["sum, 3"]
    assert report.bad == 0


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_first_line_of_excel_names_the_delimiter(read, first):
    rows, _ = read(
        "a.csv",
        first.strip('"') + "\r\nid;dialogue,x;summary\r\n1;a,b;c\r\n",
        fields={**FIELDS, "prompt": "dialogue,x"},
    )
    assert rows["1"].prompt == "a,b"


def test_a_delimiter_of_ones_own(read):
    rows, _ = read("a.csv", "id^dialogue^summary\n1^a,b^c\n", delimiter="^")
    assert rows["1"].prompt == "a,b"
    with pytest.raises(DataError, match=r"`data\.delimiter` is '::'"):
        read("a.csv", "id\n", delimiter="::")


def test_tabs_without_quoting_as_google_sheets_writes_them(read):
    content = 'id\tdialogue\tsummary\n1\t"open, she said\ts\n2\t"Oh" he said\ts\n3\tlast "one"\ts\n'
    rows, report = read("a.tsv", content)
    assert [rows[i].prompt for i in "123"] == ['"open, she said', '"Oh" he said', 'last "one"']
    assert report.bad == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.json", "a.csv.gz"])
def test_encodings_are_told_by_the_first_bytes(read, name, encoding):
    if "json" in name:
        rows = [{"id": str(i), "dialogue": f"naïve Ω {i}"} for i in range(9)]
        text = json.dumps(rows) if name == "a.json" else "".join(json.dumps(r) + "\n" for r in rows)
    else:
        text = "id\tdialogue\n" + "".join(f"{i}\tnaïve Ω {i}\n" for i in range(9))
    rows, report = read(name, text.encode(encoding))
    assert rows["7"].prompt == "naïve Ω 7"
    assert report.bad == 0


def test_bytes_of_another_encoding_are_named_or_read_by_its_name(read):
    content = "id,dialogue\n" + "".join(f"{i},café {i}\n" for i in range(300))
    raw = content.encode("windows-1252")
    with pytest.raises(DataError, match=r"all 300 rows.*0xE9 is no UTF-8.*data\.encoding=windows"):
        read("a.csv", raw)
    rows, _ = read("a.csv", raw, encoding="windows-1252")
    assert rows["3"].prompt == "café 3"
    with pytest.raises(DataError, match=r"`data\.encoding` is 'ansi-x'"):
        read("a.csv", raw, encoding="ansi-x")


def test_jsonl_of_another_encoding(read):
    rows = "".join(f'{{"dialogue": "café {i}"}}\n' for i in range(300))
    with pytest.raises(DataError, match=r"all 300 rows.*no UTF-8.*data\.encoding"):
        read("a.jsonl", rows.encode("latin-1"))


def test_names_with_spaces_and_in_upper_case(read):
    rows, _ = read("a.csv", 'ID, Dialogue , SUMMARY\n1, "a, b", c\n')
    assert rows["1"].prompt == "a, b"
    assert rows["1"].references == ["c"]
    with pytest.raises(DataError, match=r"could be `Dialogue` or `DIALOGUE`.*data\.fields\.prompt"):
        read("a.csv", "Dialogue,DIALOGUE\na,b\n")
    rows, _ = read("a.csv", "id,dialogue,DIALOGUE\n1,a,b\n")
    assert rows["1"].prompt == "a"


def test_one_column_of_texts_with_commas(read):
    rows, _ = read("a.csv", "prompt\nhello, you idiot\nwell; no\n")
    assert [row.prompt for row in rows.values()] == ["hello, you idiot", "well; no"]


def test_delimiters_at_the_end_of_rows(read):
    rows, report = read("a.csv", "id,dialogue\n1,a,,\n2,b\n")
    assert set(rows) == {"1", "2"}
    assert report.bad == 0


TWICE = [
    ("a.csv", "id,dialogue,summary,summary\n1,a,b,c\n", "summary", "references"),
    ("a.csv.gz", "id,dialogue,dialogue \n1,a,b\n", "dialogue", "prompt"),
    ("a.tsv", "id\tdialogue\tid\n1\ta\tb\n", "id", "id"),
    ("a.jsonl", '{"dialogue": "a", "dialogue": "b"}\n', "dialogue", "prompt"),
    ("a.jsonl.gz", '{"prompt": {"toxicity": 1, "toxicity": 0}, "dialogue": "a"}\n', None, None),
    ("a.json", '[{"dialogue": "a", "summary": "b", "summary": "c"}]', "summary", "references"),
]


@pytest.mark.parametrize(("name", "content", "column", "field"), TWICE)
def test_a_column_that_is_read_and_stands_twice(read, name, content, column, field):
    fields = FIELDS if column else {"prompt": "dialogue", "toxicity": "prompt.toxicity"}
    column, field = column or "prompt.toxicity", field or "toxicity"
    with pytest.raises(
        DataError, match=rf"`{column}` stands twice in {name}.*`data\.fields\.{field}`"
    ):
        read(name, content, fields=fields)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,dialogue,note,note,,\n1,a,b,c,,\n"),
        ("a.jsonl", '{"id": 1, "dialogue": "a", "x": 1, "x": 2, "y": {"z": 1, "z": 2}}\n'),
    ],
)
def test_a_column_that_nobody_reads_may_stand_twice(read, name, content):
    rows, _ = read(name, content)
    assert rows["1"].prompt == "a"


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "feather"])
def test_arrow_tables(tmp_path, kind):
    def write(names):
        columns = [pyarrow.array([f"{name} {i}" for i in range(40)]) for name in names]
        whole = pyarrow.Table.from_arrays(columns, names=names)
        path = tmp_path / ("a.arrow" if kind == "stream" else f"a.{kind}")
        if kind == "parquet":
            parquet.write_table(whole, path)
        elif kind == "feather":
            feather.write_feather(whole, str(path))
        else:
            new = pyarrow.ipc.new_file if kind == "arrow" else pyarrow.ipc.new_stream
            with new(str(path), whole.schema) as writer:
                writer.write_table(whole)
        return load_prompt_sets(path=str(path), fields={"prompt": "prompt"}, cache=False)

    assert len(write(["prompt", "other"]).train) > 25
    if kind != "feather":
        assert len(write(["prompt", "other", "other"]).train) > 25
        with pytest.raises(DataError, match=r"`prompt` stands twice in a\..*data\.fields\.prompt"):
            write(["prompt", "prompt"])


@pytest.mark.parametrize("kind", ["parquet", "feather", "saved"])
def test_all_columns_are_named_where_one_is_wrong(kind, tmp_path):
    table = pyarrow.table({"text": ["a", "b"], "toxicity": [0.1, 0.2], "label": [0, 1]})
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path)
    elif kind == "feather":
        feather.write_feather(table, str(path))
    else:
        Dataset(table).save_to_disk(str(path))
    with pytest.raises(DataError) as caught:
        load_prompt_sets(path=str(path), fields={"prompt": "txt", "toxicity": "toxicity"})
    found = re.search(r"columns found: ([a-z, ]+);", str(caught.value))
    assert sorted(found[1].split(", ")) == ["label", "text", "toxicity"]
    assert "did you mean `text`?" in str(caught.value)


def test_other_kinds_under_the_name_of_a_table(read):
    with pytest.raises(DataError, match=r"Excel workbook.*data\.path"):
        read("a.csv", b"PK\x03\x04 and so on")
    with pytest.raises(DataError, match=r"Parquet.*data\.path"):
        read("a.jsonl", b"PAR1 and so on")


def test_what_all_rows_have_in_common_is_said_instead_of_skipping_more(read):
    lines = "".join(f"{i},a, b, c,s\n" for i in range(300))
    with pytest.raises(DataError) as caught:
        read("a.csv", "id,dialogue,summary\n" + lines)
    assert "all 300 rows that were read fail alike" in str(caught.value)
    assert "data.delimiter" in str(caught.value)
    assert "bad_row_limit" not in str(caught.value)
    with pytest.raises(DataError, match=r"all 300 rows.*no JSON.*data\.path"):
        read("a.jsonl", lines)
    rows = "".join(f"{i},text {i},high\n" for i in range(300))
    with pytest.raises(DataError, match=r"all 300 rows.*`toxicity` is no number.*fields\.toxicity"):
        read("a.csv", "id,dialogue,toxicity\n" + rows)


def test_json_under_the_name_of_a_table(read):
    with pytest.raises(DataError, match=r"holds JSON; call it \.jsonl.*data\.path"):
        read("a.csv", '{"prompt": "a"}\n')


def test_a_json_list_under_the_name_of_json_lines(read):
    rows, _ = read("a.jsonl", json.dumps([{"id": 1, "dialogue": "a"}], indent=2))
    assert rows["1"].prompt == "a"
    rows, _ = read("a.jsonl", json.dumps([{"id": 1, "dialogue": "a"}]))
    assert rows["1"].prompt == "a"


def test_hidden_files_of_a_folder_are_no_prompts(tmp_path):
    for name in ("a.txt", "b.txt", "._a.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    sets = load_prompt_sets(path=str(tmp_path), fields={"prompt": "text"}, cache=False)
    prompts = {row.prompt for row in sets.train + sets.validation + sets.test}
    assert prompts == {"text of a.txt", "text of b.txt"}
