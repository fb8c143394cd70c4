"""What classifiers learned from: kept beside the weights, compared, never called independent."""

import random

import pytest

from lora_detox.scores.training_data import (
    FILE,
    describe_training,
    overlap,
    shared_training,
    training_data_of,
    write_training_data,
)


def texts(first, last):
    return [f"comment number {n} about the weather" for n in range(first, last)]


def record(rows, data="a/rows.jsonl", source=None, start="base"):
    labels = [n % 2 == 0 for n in range(len(rows))]
    return describe_training(data, rows, labels, [source] * len(rows), start)


def test_a_record_comes_back_and_holds_no_text(tmp_path):
    written = record(texts(0, 1000), source="jigsaw")
    write_training_data(tmp_path, written)
    assert training_data_of(str(tmp_path)) == written
    assert "weather" not in (tmp_path / FILE).read_text()
    assert len(written.sketch) == 256
    assert written.corpora == {"jigsaw": 1000}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"data": 3, "more": 1}'])
def test_what_is_no_record_is_unknown(content, tmp_path):
    assert training_data_of(str(tmp_path)) is None
    (tmp_path / FILE).write_text(content)
    assert training_data_of(str(tmp_path)) is None
    assert training_data_of("someone/toxic-bert") is None
    assert training_data_of(None) is None


@pytest.mark.parametrize("common", [0, 100, 500, 1000])
def test_the_overlap_of_two_sets_is_told_from_their_sketches(common):
    one = record(texts(0, 1000)).sketch
    other = record(texts(1000 - common, 2000 - common)).sketch
    exact = common / (2000 - common)
    assert overlap(one, other) == pytest.approx(exact, abs=0.08)
    assert overlap([], one) is None


def test_small_sets_are_compared_exactly():
    one, other = record(texts(0, 10)).sketch, record(texts(5, 15)).sketch
    assert overlap(one, other) == pytest.approx(5 / 15)


def test_case_and_punctuation_make_no_other_text():
    loud = [f"{text.upper()}!!" for text in texts(0, 50)]
    assert overlap(record(texts(0, 50)).sketch, record(loud).sketch) == 1.0


def test_what_two_scorers_have_in_common():
    rows = texts(0, 2000)
    random.Random(0).shuffle(rows)
    halves = [
        record(rows[:1000], "labelled/reward.jsonl"),
        record(rows[1000:], "labelled/judge.jsonl"),
    ]
    assert shared_training([halves[0]], [halves[0]]) == "texts"
    assert shared_training([halves[0]], [halves[1]]) == "folder"
    named = [
        record(half, f"{n}/rows.jsonl", "jigsaw")
        for n, half in enumerate((rows[:1000], rows[1000:]))
    ]
    assert shared_training([named[0]], [named[1]]) == "corpora"
    other = record(texts(5000, 6000), "c/rows.jsonl", "hatexplain")
    assert shared_training([named[0]], [other]) == "start"
    another = record(texts(5000, 6000), "c/rows.jsonl", "hatexplain", start="other")
    assert shared_training([named[0]], [another]) == "none known"
    assert shared_training([named[0]], [None]) == "unknown"
    assert shared_training([], [named[0]]) == "unknown"
    # Of an ensemble the member counts that has most in common.
    assert shared_training([another, named[0]], [named[1]]) == "corpora"
    assert shared_training([named[0], None], [another]) == "unknown"
    far = record(texts(5000, 6000), "elsewhere/rows.jsonl")
    assert shared_training([halves[0]], [far]) == "unknown"
    hub = [record(texts(n, n + 9), f"user/{n}") for n in (0, 100)]
    assert shared_training([hub[0]], [hub[1]]) == "unknown"  # one owner is no one folder


def test_the_embedded_classifiers_are_two_halves_of_one_corpus():
    pair = [training_data_of("embedded:reward")], [training_data_of("embedded:judge")]
    assert shared_training(*pair) == "corpora"
