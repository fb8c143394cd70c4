import os
import subprocess
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer

from lora_detox.metrics.overlap import rouge_per_response, sentences_on_lines
from lora_detox.metrics.rouge import Rouge

RESPONSE = "The meeting moved to Friday. Anna brings the reports."
REFERENCE = "Anna will bring the report. The meeting was moved to Friday."


def test_worked_by_hand():
    # unigrams the, cat, sat: 2 of 3 match; bigrams: "the cat" of two; LCS "the cat".
    scores = rouge_per_response(["the cat sat"], [["the cat ran"]])
    assert scores["rouge1"] == pytest.approx([2 / 3])
    assert scores["rouge2"] == pytest.approx([1 / 2])
    assert scores["rougeL"] == pytest.approx([2 / 3])


def test_equals_rouge_score():
    oracle = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    expected = oracle.score(REFERENCE, RESPONSE)
    scores = rouge_per_response([RESPONSE], [[REFERENCE]])
    for key, score in expected.items():
        assert scores[key] == pytest.approx([score.fmeasure])


def test_lsum_sees_sentences_and_so_forgives_their_order():
    oracle = RougeScorer(["rougeLsum"], use_stemmer=True)
    by_line = oracle.score(REFERENCE.replace(". ", ".\n"), RESPONSE.replace(". ", ".\n"))
    scores = rouge_per_response([RESPONSE], [[REFERENCE]])
    assert scores["rougeLsum"] == pytest.approx([by_line["rougeLsum"].fmeasure])
    assert scores["rougeLsum"][0] > scores["rougeL"][0]


def test_best_reference_counts_for_each_key_alone():
    alone = [rouge_per_response(["a b c d"], [[ref]]) for ref in ("a b x y", "d c b a")]
    both = rouge_per_response(["a b c d"], [["a b x y", "d c b a"]])
    for key, value in both.items():
        assert value[0] == max(one[key][0] for one in alone)
    assert both["rouge1"][0] == alone[1]["rouge1"][0]
    assert both["rouge2"][0] == alone[0]["rouge2"][0]


def test_empty_response_scores_zero_and_no_reference_is_not_zero():
    scores = rouge_per_response(["", "text"], [["reference"], []])
    assert scores["rouge1"][0] == 0.0
    assert scores["rouge1"][1] != scores["rouge1"][1]


def test_number_of_references_must_match():
    with pytest.raises(ValueError, match="2 responses and 1 lists"):
        rouge_per_response(["a", "b"], [["a"]])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("kept\nas is. yes", ["kept", "as is. yes"]),
        ("pi is 3.14", ["pi is 3.14"]),
        ("", [""]),
    ],
)
def test_sentences(text, lines):
    assert sentences_on_lines(text).split("\n") == lines


def test_metric_means_and_lists():
    predictions, references = ["the cat sat", "no"], ["the cat ran", "no"]
    metric = Rouge()
    assert metric.compute(predictions=predictions, references=references)["rouge1"] == (
        pytest.approx((2 / 3 + 1) / 2)
    )
    several = [[text, "other"] for text in references]
    lists = metric.compute(predictions=predictions, references=several, use_aggregator=False)
    assert lists["rouge1"] == pytest.approx([2 / 3, 1.0])


@pytest.mark.slow
def test_metric_needs_neither_network_nor_cache(tmp_path):
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from lora_detox.metrics.rouge import Rouge\n"
        "print(Rouge().compute(predictions=['a b'], references=['a b'])['rougeL'])\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1.0"
    assert not (tmp_path / "hf" / "metrics").exists()
    assert not list((tmp_path / "hf").rglob("*.arrow")) if (tmp_path / "hf").exists() else True
