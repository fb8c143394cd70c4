"""Cells that hold lists, objects or nothing; dialogues as lists; folders of texts; workbooks."""

import json
import zipfile

import datasets
import numpy as np
import pandas as pd
import pytest

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

FIELDS = {
    "prompt": "prompt|dialogue",
    "references": "summaries|summary",
    "toxicity": "toxicity|prompt.toxicity",
    "id": "id",
}
CONTINUATION = {"prompt": "prompt|dialogue|messages|turns", "id": "id"}


def load(path, fields=FIELDS, **rules):
    rules = {"split_fractions": (1.0, 0.0, 0.0), **rules}
    sets = load_prompt_sets(path=str(path), fields=fields, cache=False, **rules)
    return {row.row_id: row for row in sets.train}


@pytest.fixture
def read_csv(tmp_path):
    def write_and_read(columns, fields=FIELDS, **rules):
        count = len(next(iter(columns.values())))
        frame = pd.DataFrame({"id": range(count), **columns})
        frame.to_csv(tmp_path / "a.csv.gz", index=False)
        return load(tmp_path / "a.csv.gz", fields, **rules)

    return write_and_read


LISTS = [
    ["a 'x'", 'b "y"'],
    np.array(["a 'x'", 'b "y"'], dtype=object),
    np.array(["a 'x'", 'b "y"']),
    ("a 'x'", 'b "y"'),
    json.dumps(["a 'x'", 'b "y"']),
    ["a 'x'", None, 'b "y"'],
    ["a 'x'", float("nan"), 'b "y"'],
]


@pytest.mark.parametrize("value", LISTS, ids=repr)
def test_references_that_pandas_wrote_as_lists(read_csv, value):
    if isinstance(value, tuple):
        value = list(value)
    rows = read_csv({"dialogue": ["hi", "ho"], "summaries": [value, ["one"]]})
    assert rows["0"].references == ["a 'x'", 'b "y"']
    assert rows["1"].references == ["one"]


def test_missing_cells(read_csv):
    rows = read_csv(
        {
            "dialogue": ["a", "b", "c", "d", "none"],
            "summary": ["nan", None, "None", "<NA>", "real"],
            "toxicity": ["0,5", None, "None", "TRUE", "nan"],
        }
    )
    assert [rows[str(i)].references for i in range(5)] == [[], [], [], [], ["real"]]
    assert [rows[str(i)].toxicity for i in range(5)] == [0.5, None, None, 1.0, None]


def test_text_that_begins_with_a_bracket_stays_text(read_csv):
    texts = [
        "[laughs] you idiot",
        "{name} is a fool",
        "[laughs]",
        "{name}",
        "['twas the night]",
        "['a', 'b']",  # one cell may be so by chance
        '["a"] and more',
    ]
    rows = read_csv({"dialogue": texts, "summary": ["[sic]", "{x}", "[1] a", "s", "s", "s", "s"]})
    assert [rows[str(i)].prompt for i in range(7)] == texts
    assert rows["0"].references == ["[sic]"]


@pytest.mark.parametrize("wrap", [dict, json.dumps])
def test_objects_in_cells_are_read_by_dotted_names_and_else_refused(read_csv, wrap):
    prompts = [wrap({"text": f"You are {i}", "toxicity": i / 10}) for i in range(8)]
    dotted = {"prompt": "prompt.text", "toxicity": "prompt.toxicity", "id": "id"}
    rows = read_csv({"prompt": prompts}, dotted)
    assert (rows["4"].prompt, rows["4"].toxicity) == ("You are 4", 0.4)
    with pytest.raises(DataError, match=r"all 8 rows.*set data\.fields\.prompt=prompt\.text"):
        read_csv({"prompt": prompts})
    with pytest.raises(DataError, match=r"columns found: id, prompt\.text, prompt\.toxicity"):
        read_csv({"prompt": prompts}, {"prompt": "text"})


def test_numbers_of_numpy_and_missing_values_inside_objects(read_csv):
    cells = [
        "{'text': 'a', 'toxicity': np.float64(0.5)}",
        "{'text': 'b', 'toxicity': nan}",
        "{'text': 'c (d)', 'refs': array(['x', 'y'], dtype=object)}",
    ]
    fields = {"prompt": "p.text", "toxicity": "p.toxicity", "references": "p.refs", "id": "id"}
    rows = read_csv({"p": cells}, fields)
    assert [rows[i].toxicity for i in "012"] == [0.5, None, None]
    assert rows["2"].prompt == "c (d)"
    assert rows["2"].references == ["x", "y"]


def test_lists_that_numpy_cut_are_refused(read_csv):
    with pytest.raises(DataError, match=r"numpy left out the middle.*data\.fields\.references"):
        read_csv({"dialogue": ["a"] * 3, "summaries": ["['a' 'b' ... 'y' 'z']"] * 3})


def test_strings_of_json_are_what_they_are(write_rows):
    rows = [{"id": i, "prompt": '["a", "b"]', "summary": '{"a": "b"}'} for i in range(3)]
    assert load(write_rows("a.jsonl", rows))["1"].prompt == '["a", "b"]'
    assert load(write_rows("a.jsonl", rows))["1"].references == ['{"a": "b"}']


TURNS = {
    "texts": ["A: hi", "B: you idiot", "A: bye"],
    "objects": [
        {"speaker": "A", "text": "hi"},
        {"speaker": "B", "text": "you idiot"},
        {"speaker": "A", "text": "bye"},
    ],
    "chat": [
        {"role": "A", "content": "hi"},
        {"role": "B", "content": [{"text": "you idiot"}]},
        {"role": "A", "content": "bye"},
    ],
    "sharegpt": [
        {"from": "A", "value": "hi"},
        {"from": "B", "value": "you idiot"},
        {"from": "A", "value": "bye"},
    ],
    "pairs": [["A", "hi"], ["B", "you idiot"], ["A", "bye"]],
    "columns": {"speaker": ["A", "B", "A"], "utterance": ["hi", "you idiot", "bye"]},
}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("as_csv", [False, True])
@pytest.mark.parametrize("summary", ["s", ["s", "t"]])
def test_a_list_of_turns_is_one_dialogue(write_rows, read_csv, turns, as_csv, summary):
    if as_csv:
        rows = read_csv({"prompt": [turns] * 4, "summary": [summary] * 4})
    else:
        data = [{"id": i, "prompt": turns, "summary": summary} for i in range(4)]
        rows = load(write_rows("a.jsonl", data))
    assert list(rows) == ["0", "1", "2", "3"]
    assert rows["2"].prompt == "A: hi\nB: you idiot\nA: bye"
    assert rows["2"].references == ([summary] if isinstance(summary, str) else summary)


def test_turns_that_numpy_wrote(read_csv):
    turns = np.array([{"speaker": "A", "text": "hi"}, {"speaker": "B", "text": "it's"}], object)
    assert read_csv({"dialogue": [turns] * 2})["1"].prompt == "A: hi\nB: it's"


def test_lists_of_prompts_are_unfolded(write_rows):
    bold = [{"id": i, "prompt": ["a", "b"], "summary": ["r", "s"]} for i in range(3)]
    rows = load(write_rows("a.jsonl", bold))
    assert (rows["1#1"].prompt, rows["1#1"].references) == ("b", ["s"])
    assert len(load(write_rows("a.jsonl", bold), CONTINUATION)) == 6


def test_texts_under_the_name_of_a_dialogue_are_one_without_references(write_rows):
    rows = [{"id": i, "dialogue": ["hi", "ho"]} for i in range(3)]
    assert load(write_rows("a.jsonl", rows), CONTINUATION)["1"].prompt == "hi\nho"


def test_lists_that_could_be_either_ask_for_the_key(write_rows):
    equal = [{"id": i, "dialogue": ["a", "b"], "summary": ["r", "s"]} for i in range(3)]
    single = [{"id": i, "prompts": ["a", "b"], "summary": "r"} for i in range(3)]
    for rows, column in ((equal, "dialogue"), (single, "prompts")):
        path, fields = write_rows("a.jsonl", rows), {**FIELDS, "prompt": column}
        with pytest.raises(
            DataError, match=rf"`{column}`.*data\.turns=dialogue.*data\.turns=prompts"
        ):
            load(path, fields)
        assert len(load(path, fields, turns="dialogue")) == 3
        assert len(load(path, fields, turns="prompts")) == 6
        assert load(path, fields, turns="last")["1"].prompt == "b"
    with pytest.raises(DataError, match=r"`data\.turns` is 'glue': want auto, dialogue"):
        load(path, fields, turns="glue")


def test_messages_of_a_chat(write_rows):
    user, answer = {"role": "user", "content": "you idiot"}, {"role": "assistant", "content": "no"}
    path = write_rows("a.jsonl", [{"id": i, "prompt": [user]} for i in range(3)])
    assert load(path, CONTINUATION)["1"].prompt == "you idiot"
    path = write_rows("a.jsonl", [{"id": i, "prompt": [user, answer]} for i in range(300)])
    with pytest.raises(DataError) as caught:
        load(path, CONTINUATION)
    assert "all 300 rows" in str(caught.value)
    assert "data.turns=last" in str(caught.value)
    assert "bad_row_limit" not in str(caught.value)
    assert load(path, CONTINUATION, turns="last")["1"].prompt == "you idiot"
    assert (
        load(path, CONTINUATION, turns="dialogue")["1"].prompt == "user: you idiot\nassistant: no"
    )


def test_nested_prompts_get_the_column_to_name(write_rows):
    rows = [{"prompt": {"text": f"t {i}", "toxicity": 0.5}, "x": {"text": "c"}} for i in range(300)]
    with pytest.raises(DataError, match=r"all 300 rows.*set data\.fields\.prompt=prompt\.text$"):
        load(write_rows("a.jsonl", rows))
    rows = [{"prompt": "a", "summary": {"long": 1, "short": "s"}} for _ in range(3)]
    with pytest.raises(DataError, match=r"set data\.fields\.references=summary\.short"):
        load(write_rows("a.jsonl", rows))
    rows = [{"prompt": "a", "toxicity": {"toxicity": 0.5, "insult": 1}} for _ in range(3)]
    with pytest.raises(DataError, match=r"set data\.fields\.toxicity=toxicity\.toxicity"):
        load(write_rows("a.jsonl", rows))
    rows = [{"prompt": [1, 2]} for _ in range(3)]
    with pytest.raises(
        DataError, match=r"all 3 rows.*list of something else.*data\.fields\.prompt"
    ):
        load(write_rows("a.jsonl", rows))


def test_a_text_file_is_a_prompt_per_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffHello, you\r\n\r\nid, or not; this\r\n".encode())
    rows = load(tmp_path / "a.txt", {"prompt": "prompt|text"})
    assert {name: row.prompt for name, row in rows.items()} == {
        "a.txt:1": "Hello, you",
        "a.txt:3": "id, or not; this",
    }


def test_a_folder_of_text_files_is_a_prompt_per_file(tmp_path):
    for name in ("1.txt", "my test.txt", "3.txt"):
        (tmp_path / name).write_text(f"text of\n{name}\n")
    (tmp_path / "README.txt").write_text("about")
    rows = load(tmp_path, {"prompt": "prompt|text", "id": "id"})
    assert sorted(rows) == ["1.txt", "3.txt", "my test.txt"]
    assert rows["1.txt"].prompt == "text of\n1.txt"


def test_folders_of_text_files_by_split_and_files_of_lines_by_split(tmp_path):
    for split, count in (("train", 5), ("dev", 2), ("test", 3)):
        (tmp_path / "a" / split).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "a" / split / f"{i}.txt").write_text(f"{split} {i}")
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / f"{split}.txt").write_text(
            "".join(f"{split} {i}\n" for i in range(count))
        )
    for folder in ("a", "b"):
        sets = load_prompt_sets(path=str(tmp_path / folder), fields={"prompt": "text"})
        assert sets.report.sizes == {"train": 5, "validation": 2, "test": 3}


def test_a_folder_of_one_file_and_folders_of_arrow(tmp_path):
    frame = pd.DataFrame({"prompt": [f"p {i}" for i in range(30)]})
    (tmp_path / "a").mkdir()
    frame.to_csv(tmp_path / "a" / "mine.csv", index=False)
    assert len(load(tmp_path / "a")) == 30
    dataset = datasets.Dataset.from_pandas(frame)
    dataset.save_to_disk(str(tmp_path / "b"))
    assert len(load(tmp_path / "b")) == 30
    assert len(load(next((tmp_path / "b").glob("*.arrow")))) == 30
    datasets.DatasetDict(train=dataset, test=dataset.select([1])).save_to_disk(str(tmp_path / "c"))
    assert len(load(tmp_path / "c")) == 29


SHEET = """<?xml version="1.0" encoding="UTF-8"?><worksheet xmlns="{ns}"><sheetData>
<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c>
<c r="D1" t="s"><v>2</v></c></row>
<row r="3"><c r="A3"><v>7</v></c><c r="B3" t="inlineStr"><is>
<r><t>two </t></r><r><t>runs</t></r></is></c>
<c r="D3"><v>0.25</v></c></row>
<row r="4"><c r="B4" t="str"><f>A1</f><v>a_x000D_\nb</v></c><c r="D4" t="b"><v>1</v></c></row>
<row r="5"><c r="B5" t="e"><v>#N/A</v></c><c r="D5"><v>1</v></c></row>
</sheetData></worksheet>"""
TEXTS = """<sst xmlns="{ns}"><si><t>ID</t></si><si><t xml:space="preserve"> prompt</t></si>
<si><r><t>toxi</t></r><r><t>city</t></r><rPh><t>x</t></rPh></si></sst>"""
BOOK = """<workbook xmlns="{ns}" xmlns:r="{r}"><sheets><sheet name="Mine" sheetId="3" r:id="rId9"/>
</sheets></workbook>"""
LINKS = """<Relationships><Relationship Id="rId9" Target="{target}"/></Relationships>"""


@pytest.mark.parametrize(
    ("ns", "r", "target"),
    [
        (
            "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
            "worksheets/s.xml",
        ),
        (
            "http://purl.oclc.org/ooxml/spreadsheetml/main",
            "http://purl.oclc.org/ooxml/officeDocument/relationships",
            "/xl/worksheets/s.xml",
        ),
    ],
)
def test_workbooks(tmp_path, ns, r, target):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as book:
        parts = {
            "worksheets/s.xml": SHEET,
            "sharedStrings.xml": TEXTS,
            "workbook.xml": BOOK,
            "_rels/workbook.xml.rels": LINKS,
        }
        for name, text in parts.items():
            filled = text.replace("{ns}", ns).replace("{r}", r).replace("{target}", target)
            book.writestr(f"xl/{name}", filled)
    rows = load(tmp_path / "a.xlsx")
    assert {name: (row.prompt, row.toxicity) for name, row in rows.items()} == {
        "7": ("two runs", 0.25),
        "a.xlsx:4": ("a\nb", 1.0),
    }
    (tmp_path / "b.xlsx").write_bytes(b"\xd0\xcf\x11\xe0 an old or protected one")
    with pytest.raises(DataError, match=r"cannot read the workbook.*saved as \.xlsx.*data\.path"):
        load(tmp_path / "b.xlsx")
