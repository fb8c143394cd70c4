"""A list in the column of the prompt: one dialogue, or several prompts."""

import json

import pytest

from lora_detox.errors import DataError
from lora_detox.prompts.columns import field_map
from lora_detox.prompts.fields import read_source
from lora_detox.prompts.rows import BadRowLog, ColumnsTwice, RawRow
from tests.unit.prompts.test_prompt_written_values import rows_of

TURNS = ["A: hi", "B: you idiot", "A: bye"]
MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "you idiot"},
]


def write(path, **columns):
    rows = [
        {
            "id": i,
            **{
                k: json.loads(json.dumps(v).replace("idiot", f"idiot {i}"))
                for k, v in columns.items()
            },
        }
        for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_turns_with_one_summary_are_one_dialogue(tmp_path):
    rows = rows_of(write(tmp_path / "a.jsonl", dialogue=TURNS, summary="sum"))
    assert len(rows) == 12
    assert rows[3].prompt == "A: hi\nB: you idiot 3\nA: bye"
    assert (rows[3].references, rows[3].row_id) == (["sum"], "3")


def test_the_column_s_name_or_one_summary_makes_a_list_a_dialogue(tmp_path):
    by_name = rows_of(
        write(tmp_path / "a.jsonl", conversation=TURNS),
        fields={"prompt": "conversation", "references": None},
    )
    by_summary = rows_of(write(tmp_path / "b.jsonl", prompt=TURNS, summary="sum"))
    as_list = rows_of(write(tmp_path / "c.jsonl", prompt=TURNS, summaries=["sum"]))
    for rows in (by_name, by_summary, as_list):
        assert len(rows) == 12
        assert rows[0].prompt.count("\n") == 2


def test_a_list_of_prompts_with_a_reference_each_is_unfolded(tmp_path):
    prompts, references = ["one idiot", "two idiot"], ["first", "second"]
    path = write(tmp_path / "bold.jsonl", prompt=prompts, summaries=references)
    rows = rows_of(path)
    assert len(rows) == 24
    assert {tuple(row.references) for row in rows} == {("first",), ("second",)}
    alone = rows_of(write(tmp_path / "alone.jsonl", prompt=prompts))
    assert len(alone) == 24


def test_objects_with_speaker_and_text_are_turns(tmp_path):
    turns = [{"speaker": "Ann", "text": "hi"}, {"speaker": "Bob", "text": "you idiot"}]
    rows = rows_of(write(tmp_path / "a.jsonl", dialogue=turns, summary="sum"))
    assert rows[2].prompt == "Ann: hi\nBob: you idiot 2"
    shares = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "you idiot"}]
    path = write(tmp_path / "b.jsonl", conversations=shares)
    rows = rows_of(path, fields={"prompt": "conversations", "references": None})
    assert rows[2].prompt == "human: hi\ngpt: you idiot 2"


def test_chat_messages_in_a_prompt_are_asked_about_and_read_as_the_answer_says(tmp_path):
    path = write(tmp_path / "chat.jsonl", prompt=MESSAGES)
    with pytest.raises(DataError, match=r"data\.turns=dialogue.*data\.turns=last"):
        rows_of(path)
    assert rows_of(path, turns="last")[4].prompt == "you idiot 4"
    assert rows_of(path, turns="dialogue")[4].prompt.startswith("system: be kind\nuser: hi\n")
    single = write(tmp_path / "single.jsonl", prompt=MESSAGES[3:])
    assert rows_of(single)[5].prompt == "you idiot 5"


def test_turns_says_what_the_data_does_not(tmp_path):
    path = write(tmp_path / "a.jsonl", dialogue=TURNS, summary="sum")
    assert len(rows_of(path, turns="prompts")) == 12 * len(TURNS)
    assert rows_of(path, turns="last")[0].prompt == "A: bye"


def test_a_turn_without_text_is_a_bad_row(tmp_path):
    rows = [{"id": i, "dialogue": [{"speaker": "Ann"}] if i == 1 else TURNS} for i in range(9)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({**r, "summary": f"{r['id']}"}) + "\n" for r in rows))
    assert len(rows_of(path)) == 8


def test_a_column_that_stands_twice_is_an_error_where_it_is_read():
    fields = field_map({"prompt": "prompt|dialogue", "references": "summary"})
    columns = {"dialogue": "hi", "summary": "s", "other": 1}
    good = RawRow(where="a.csv:2", columns=ColumnsTwice(columns, frozenset({"other"})))
    ((_, row),) = read_source([good], fields, BadRowLog(limit=0)).rows
    assert row.prompt == "hi"
    for name in ("dialogue", "summary"):
        bad = RawRow(where="a.csv:2", columns=ColumnsTwice(columns, frozenset({name})))
        with pytest.raises(DataError, match=rf"the column `{name}` stands twice.*a\.csv:2"):
            read_source([bad], fields, BadRowLog(limit=0))
