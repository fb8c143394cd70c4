"""Splits never overlap, do not depend on order, and filters say what they dropped."""

import pytest

from lora_detox.errors import DataError
from lora_detox.prompts import load_prompt_sets

FIELDS = {"prompt": "prompt", "toxicity": "toxicity"}
ROWS = [{"prompt": f"prompt number {i}", "toxicity": i / 500} for i in range(500)]


def prompts_of(rows):
    return [row.prompt for row in rows]


def split_of(sets):
    named = {"train": sets.train, "validation": sets.validation, "test": sets.test}
    return {row.prompt: name for name, rows in named.items() for row in rows}


def test_fractions_and_disjointness(write_rows):
    doubled = [*ROWS, *[{**row, "prompt": row["prompt"] + " "} for row in ROWS[:50]]]
    sets = load_prompt_sets(path=write_rows("a.jsonl", doubled), fields=FIELDS)
    sizes = sets.report.sizes
    assert sum(sizes.values()) == 550
    assert 400 < sizes["train"] < 480
    assert 25 < sizes["test"] < 85
    keys = [{row.prompt.strip() for row in rows} for rows in (sets.train, sets.validation)]
    keys.append({row.prompt.strip() for row in sets.test})
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sets.report.duplicates == 50


def test_split_does_not_depend_on_order_or_neighbours(write_rows):
    whole = split_of(load_prompt_sets(path=write_rows("a.jsonl", ROWS), fields=FIELDS))
    part = split_of(load_prompt_sets(path=write_rows("b.jsonl", ROWS[300:99:-1]), fields=FIELDS))
    assert all(whole[prompt] == split for prompt, split in part.items())
    other = split_of(load_prompt_sets(path=write_rows("a.jsonl", ROWS), fields=FIELDS, seed=1))
    assert other != whole


def test_very_small_data_fill_every_split(write_rows):
    for count in range(3, 12):
        path = write_rows("a.jsonl", ROWS[:count])
        sizes = load_prompt_sets(path=path, fields=FIELDS).report.sizes
        assert min(sizes.values()) >= 1
        assert sum(sizes.values()) == count


def test_zero_fractions(write_rows):
    path = write_rows("a.jsonl", ROWS)
    sizes = load_prompt_sets(path=path, fields=FIELDS, split_fractions=(0.0, 0.0, 1.0)).report.sizes
    assert sizes == {"train": 0, "validation": 0, "test": 500}


def test_missing_split_is_made_of_train(write_rows):
    path, test_path = write_rows("a.jsonl", ROWS[:400]), write_rows("t.jsonl", ROWS[400:])
    sets = load_prompt_sets(path=path, test_path=test_path, fields=FIELDS)
    assert len(sets.test) == 100
    assert 20 < len(sets.validation) < 80
    assert len(sets.train) + len(sets.validation) == 400


def test_explicit_overlap_leaves_train_and_test_wins(write_rows):
    sets = load_prompt_sets(
        path=write_rows("train.jsonl", ROWS[:100]),
        validation_path=write_rows("val.jsonl", ROWS[90:120]),
        test_path=write_rows("test.jsonl", ROWS[110:150] + ROWS[:5]),
        fields=FIELDS,
    )
    train, validation, test = map(prompts_of, (sets.train, sets.validation, sets.test))
    assert train == [row["prompt"] for row in ROWS[5:90]]
    assert validation == [row["prompt"] for row in ROWS[90:110]]
    assert len(test) == 45
    assert sets.report.overlap_removed == 5 + 10 + 10
    assert "25 removed because validation or test has the same prompt" in sets.report.describe()


def test_train_that_is_all_test(write_rows):
    path, test_path = write_rows("a.jsonl", ROWS[:4]), write_rows("b.jsonl", ROWS)
    with pytest.raises(DataError, match=r"every prompt of the \d+ training rows.*data\.path"):
        load_prompt_sets(path=path, validation_path=path, test_path=test_path, fields=FIELDS)


def test_min_toxicity_is_strict_and_drops_unknown(write_rows):
    rows = [
        {"prompt": "at", "toxicity": 0.3},
        {"prompt": "above", "toxicity": 0.31},
        {"prompt": "null", "toxicity": None},
        {"prompt": "nan", "toxicity": float("nan")},
    ]
    sets = load_prompt_sets(
        path=write_rows("a.jsonl", rows),
        fields=FIELDS,
        min_toxicity=0.3,
        split_fractions=(1.0, 0.0, 0.0),
    )
    assert prompts_of(sets.train) == ["above"]
    assert sets.report.null_toxicity == 2
    assert sets.report.below_threshold == 1


def test_filter_that_leaves_nothing(write_rows):
    path = write_rows("a.jsonl", [*ROWS, {"prompt": "x", "toxicity": None}])
    wanted = r"none of the 501 .*above 1: the highest toxicity is 0\.998 .*`data\.min_toxicity`"
    with pytest.raises(DataError, match=wanted):
        load_prompt_sets(path=path, fields=FIELDS, min_toxicity=1.0)


def test_threshold_without_toxicity_column(write_rows):
    path = write_rows("a.jsonl", [{"prompt": "x"}])
    with pytest.raises(DataError, match=r"data\.min_toxicity.*data\.fields\.toxicity"):
        load_prompt_sets(path=path, fields={"prompt": "prompt"}, min_toxicity=0.3)
    with pytest.raises(DataError, match=r"no row has the column `toxicity`"):
        load_prompt_sets(path=path, fields=FIELDS, min_toxicity=0.3)


def test_limit_is_a_stable_subset(write_rows):
    path = write_rows("a.jsonl", ROWS)
    whole, large, small = (
        load_prompt_sets(path=path, fields=FIELDS, limit=limit) for limit in (None, 40, 10)
    )
    assert len(large.train) == 40
    assert set(prompts_of(small.train)) < set(prompts_of(large.train))
    assert [p for p in prompts_of(whole.train) if p in prompts_of(large.train)] == prompts_of(
        large.train
    )
    assert large.report.over_limit > 0


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.8, 0.3, -0.1), (0.5, 0.1, 0.1)])
def test_wrong_fractions(write_rows, fractions):
    with pytest.raises(DataError, match=r"sum to 1.*data\.split_fractions"):
        load_prompt_sets(path=write_rows("a.jsonl", ROWS), fields=FIELDS, split_fractions=fractions)


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ({"limit": 0}, "data.limit"),
        ({"bad_row_limit": -1}, "data.bad_row_limit"),
        ({"split_names": ("train",)}, "data.split_names"),
    ],
)
def test_wrong_numbers(write_rows, argument, key):
    with pytest.raises(DataError, match=f"`{key}`"):
        load_prompt_sets(path=write_rows("a.jsonl", ROWS), fields=FIELDS, **argument)


def test_dialogsum(shared_data):
    """52 dev and 1 test dialogue of DialogSum also stand in its training file."""
    sets = load_prompt_sets(
        path=str(shared_data / "dialogsum.train.jsonl.gz"),
        validation_path=str(shared_data / "dialogsum.dev.jsonl.gz"),
        test_path=str(shared_data / "dialogsum.test.jsonl.gz"),
        fields={"prompt": "dialogue", "references": "summaries|summary", "id": "id"},
    )
    train = set(prompts_of(sets.train))
    assert not train & set(prompts_of(sets.validation) + prompts_of(sets.test))
    assert sets.report.overlap_removed > 0
    assert len(sets.test) == 500
    assert all(len(row.references) == 3 for row in sets.test)


def test_real_toxicity_prompts(shared_data):
    sets = load_prompt_sets(
        path=str(shared_data / "rtp.val.jsonl.gz"),
        fields={"prompt": "prompt", "toxicity": "toxicity", "id": "id"},
        min_toxicity=0.3,
    )
    rows = sets.train + sets.validation + sets.test
    assert len(rows) > 1000
    assert min(row.toxicity for row in rows) > 0.3
    assert sets.report.null_toxicity == 19
