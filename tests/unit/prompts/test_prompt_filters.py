"""Lists of prompts in a row, rows that are left out by a pattern, and both bounds on toxicity."""

import pytest

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

ALL_TO_TRAIN = (1.0, 0.0, 0.0)


def test_a_list_of_prompts_becomes_rows_with_their_own_references(write_rows):
    rows = [
        {"prompts": ["a b", "c d"], "wikipedia": ["a b e", "c d f"], "name": "x"},
        {"prompts": "single", "wikipedia": "single one", "name": "y"},
        {"prompts": ["lonely"], "wikipedia": ["too", "many"], "name": "z"},
    ]
    fields = {"prompt": "prompts", "references": "wikipedia", "id": "name"}
    path = write_rows("bold.jsonl", rows)
    sets = load_prompt_sets(path=path, fields=fields, split_fractions=ALL_TO_TRAIN)
    found = {row.row_id: (row.prompt, row.references) for row in sets.train}
    assert found == {
        "x#0": ("a b", ["a b e"]),
        "x#1": ("c d", ["c d f"]),
        "y": ("single", ["single one"]),
        "z#0": ("lonely", ["too", "many"]),
    }


def test_rows_that_match_the_pattern_are_left_out_and_are_no_bad_rows(write_rows):
    lines = ["", " = Heading = ", " = = Second = = ", " A real paragraph . ", "x = y and more"]
    path = write_rows("wiki.jsonl", [{"text": line} for line in lines])
    sets = load_prompt_sets(
        path=path,
        fields={"prompt": "text"},
        skip=r"\s*(=.*=)?\s*",
        split_fractions=ALL_TO_TRAIN,
        bad_row_limit=0,
    )
    assert sorted(row.prompt for row in sets.train) == [" A real paragraph . ", "x = y and more"]
    assert "3 skipped by the pattern" in sets.report.describe()
    with pytest.raises(DataError, match=r"`data\.skip`.*no regular expression"):
        load_prompt_sets(path=path, fields={"prompt": "text"}, skip="(")


def test_bounds_on_both_sides(write_rows):
    rows = [{"prompt": f"p{i}", "toxicity": i / 10} for i in range(11)]
    path = write_rows("rows.jsonl", [*rows, {"prompt": "null", "toxicity": None}])
    fields = {"prompt": "prompt", "toxicity": "toxicity"}
    sets = load_prompt_sets(
        path=path,
        fields=fields,
        min_toxicity=0.3,
        max_toxicity=0.7,
        split_fractions=ALL_TO_TRAIN,
    )
    assert {row.toxicity for row in sets.train} == {0.4, 0.5, 0.6, 0.7}
    report = sets.report
    assert (report.below_threshold, report.above_limit, report.null_toxicity) == (4, 3, 1)
    with pytest.raises(DataError, match=r"`data\.max_toxicity`"):
        load_prompt_sets(path=path, fields=fields, max_toxicity=-0.5)
    with pytest.raises(DataError, match=r"`data\.max_toxicity` is 0\.5 but no column"):
        load_prompt_sets(path=path, fields={"prompt": "prompt"}, max_toxicity=0.5)


def test_each_row_gets_one_prefix_whatever_else_is_there(write_rows):
    rows = [{"prompt": f"p{i}"} for i in range(40)]
    prefixes = ["[a] ", "[b] "]

    def prefixed(count):
        path = write_rows("rows.jsonl", rows[:count])
        sets = load_prompt_sets(path=path, fields={"prompt": "prompt"}, prefixes=prefixes)
        return {row.prompt for row in sets.train + sets.validation + sets.test}

    every = prefixed(40)
    assert {text[:4] for text in every} == set(prefixes)
    assert prefixed(20) <= every
