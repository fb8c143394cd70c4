"""Lists and objects that pandas and numpy wrote into a table as text."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from lora_detox.errors import DataError
from lora_detox.prompts.load import load_prompt_sets
from lora_detox.prompts.values import is_missing, written_value

FIELDS = {
    "prompt": "prompt|dialogue",
    "references": "summaries|summary",
    "toxicity": "toxicity|prompt.toxicity",
    "id": "id",
}


def rows_of(path, **changes):
    fields = {**FIELDS, **changes.pop("fields", {})}
    sets = load_prompt_sets(path=str(path), fields=fields, cache=False, **changes)
    rows = [*sets.train, *sets.validation, *sets.test]
    return sorted(rows, key=lambda row: row.row_id.zfill(12))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a 0', 'b 0']", ["a 0", "b 0"]),
        ('["a", "b"]', ["a", "b"]),
        ("""["it's", 'so "so"']""", ["it's", 'so "so"']),
        (str(np.array(["a b", "c"])), ["a b", "c"]),
        (str(np.array(["one text of some length " * 3, "another one " * 5])), None),
        ("{'text': 'You', 'toxicity': 0.5}", {"text": "You", "toxicity": 0.5}),
        ('{"text": "You", "toxicity": null}', {"text": "You", "toxicity": None}),
        ("[{'role': 'user', 'content': 'hi'}]", [{"role": "user", "content": "hi"}]),
        (" ['padded'] ", ["padded"]),
    ],
)
def test_a_whole_cell_that_spells_a_list_or_an_object_is_one(text, value):
    written = written_value(text)
    if value is None:  # numpy breaks lines between texts
        value = ["one text of some length " * 3, "another one " * 5]
    assert written == value


@pytest.mark.parametrize(
    "text",
    [
        "[laughs] you idiot",
        "[laughs]",
        "{name} is a fool",
        "{name}",
        "[1]",
        "[1, 2]",
        "[]",
        "{}",
        "{1, 2}",
        "['open",
        "[a](http://b.c)",
        "[[" * 5000 + "]]" * 5000,
        "[" * 65 + "'a'" + "]" * 65,
        '[{"a": ' * 33 + '"b"' + "}]" * 33,
        "",
        "plain",
    ],
)
def test_a_text_that_merely_begins_with_a_bracket_stays_text(text):
    assert written_value(text) is None


def test_nan_of_pandas_is_nothing():
    assert is_missing(math.nan)
    assert not is_missing(0.5)
    assert not is_missing(("a", "b"))


def test_references_that_pandas_wrote_are_several_references(tmp_path):
    frame = pd.DataFrame(
        {
            "id": range(30),
            "dialogue": [f"Person {i}: late" for i in range(30)],
            "summaries": [[f"a {i}", f"b {i}"] for i in range(30)],
        }
    )
    frame.to_csv(tmp_path / "refs.csv", index=False)
    rows = rows_of(tmp_path / "refs.csv")
    assert [row.references for row in rows] == [[f"a {i}", f"b {i}"] for i in range(30)]


def test_a_nested_prompt_in_a_csv_is_found_by_its_dotted_name(tmp_path):
    prompts = [{"text": f"You are {i}", "toxicity": i / 100} for i in range(30)]
    pd.DataFrame({"prompt": prompts}).to_csv(tmp_path / "rtp.csv", index=False)
    rows = rows_of(tmp_path / "rtp.csv", fields={"prompt": "prompt.text"}, min_toxicity=0.095)
    assert sorted((row.prompt, row.toxicity) for row in rows) == sorted(
        (f"You are {i}", i / 100) for i in range(10, 30)
    )


@pytest.mark.parametrize("name", ["rtp.csv", "rtp.jsonl"])
def test_an_object_as_prompt_is_refused_with_the_key_that_fits(tmp_path, name):
    prompts = [{"text": f"You are {i}", "toxicity": 0.5} for i in range(300)]
    path = tmp_path / name
    if name.endswith("csv"):
        pd.DataFrame({"prompt": prompts}).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    with pytest.raises(DataError, match=r"data\.fields\.prompt=prompt\.text") as raised:
        rows_of(path)
    assert "bad_row_limit" not in str(raised.value)


def test_missing_values_of_pandas_are_no_references_and_no_toxicity(tmp_path):
    frame = pd.DataFrame(
        {
            "prompt": [f"text {i}" for i in range(20)],
            "summary": ["s", np.nan] * 10,
            "toxicity": [0.5, np.nan] * 10,
        }
    )
    frame.to_parquet(tmp_path / "nan.parquet")
    frame.to_csv(tmp_path / "nan.csv", index=False, na_rep="None")
    for name in ("nan.parquet", "nan.csv"):
        rows = rows_of(tmp_path / name)
        assert len(rows) == 20
        assert {row.toxicity for row in rows} == {0.5, None}
    assert sum(not row.references for row in rows_of(tmp_path / "nan.parquet")) == 10


def test_advice_to_skip_more_rows_is_not_given_where_all_fail_alike(tmp_path):
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(json.dumps({"prompt": i}) + "\n" for i in range(300)))
    with pytest.raises(DataError, match="all 300 rows that were read fail alike") as raised:
        rows_of(path)
    assert "bad_row_limit" not in str(raised.value)
    mixed = tmp_path / "mixed.jsonl"
    rows = [{"prompt": f"text {i}" if i % 3 == 0 else i} for i in range(300)]
    mixed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"data\.bad_row_limit"):
        rows_of(mixed)
