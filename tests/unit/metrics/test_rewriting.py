"""J of rewrites by hand, and BLEU against NLTK's own."""

import math
import random

import numpy as np
import pytest
import torch
from nltk.translate.bleu_score import corpus_bleu

from lora_detox.metrics import names
from lora_detox.metrics.bleu import bleu, bleu_counts, bleu_of, paired_bleu_interval
from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.rewriting import rewrite_columns
from lora_detox.metrics.summary import change, summarise
from lora_detox.types import Evaluation

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "then",
    "it",
    "went",
    "home",
    "to",
    "its",
    "old",
    "red",
    "house",
]


def texts(count, seed, least=4):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(least, 12))) for _ in range(count)]


def close_to(references, seed):
    """Responses that have some words of their first reference, so that 4-grams are in common."""
    rng = random.Random(seed)
    return [
        " ".join(word if rng.random() < 0.8 else rng.choice(WORDS) for word in refs[0].split())
        for refs in references
    ]


@pytest.mark.golden
@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_nltks(seed):
    references = [texts(1 + place % 3, f"{seed}/{place}") for place in range(30)]
    responses = close_to(references, seed)
    expected = corpus_bleu(
        [[one.split() for one in refs] for refs in references], [one.split() for one in responses]
    )
    assert 0 < expected < 1
    assert bleu(responses, references) == pytest.approx(expected, abs=1e-12)


def test_bleu_of_plain_cases():
    assert bleu(["The cat sat on a mat!"], [["the cat sat on a mat"]]) == 1.0
    assert bleu(["красивый дом стоит возле реки"], [["Красивый дом стоит возле реки."]]) == 1.0
    assert bleu(["我们今天去公园"], [["我们今天去公园"]]) == 1.0
    assert bleu(["nothing alike"], [["the cat sat"]]) == 0.0
    assert bleu(["", ""], [["the cat sat"], ["a"]]) == 0.0
    assert math.isnan(bleu(["the cat"], [[]]))
    assert math.isnan(bleu([], []))
    short = bleu(["the cat sat on"], [["the cat sat on a mat"]])
    assert short == pytest.approx(math.exp(1 - 6 / 4))  # the brevity penalty alone


def test_a_response_without_reference_counts_nothing():
    rows = [["the cat sat on a mat"], []]
    assert bleu(["the cat sat on a mat", "word " * 50], rows) == 1.0
    with pytest.raises(ValueError, match="zip"):
        bleu(["one"], [[], []])


def test_the_interval_of_bleu_holds_the_change_and_narrows_with_prompts():
    def interval(count):
        references = [texts(1, f"r{place}") for place in range(count)]
        first, second = ["home"] * count, close_to(references, 5)
        counts = [bleu_counts(one, references) for one in (first, second)]
        whole = bleu(second, references) - bleu(first, references)
        found = paired_bleu_interval(*counts, resamples=200)
        assert found.change == pytest.approx(whole)
        assert found.low < found.change < found.high
        assert found == paired_bleu_interval(*counts, resamples=200)
        return found

    few, many = interval(10), interval(160)
    assert few.low > 0
    assert many.high - many.low < few.high - few.low


def test_prompts_are_drawn_whole():
    references = [["the cat sat on a mat"], ["a red house went home"]]
    counts = bleu_counts(["the cat sat on a mat", "home"], references)
    twice = np.concatenate([counts, counts])
    grouped = paired_bleu_interval(twice * 0, twice, groups=[0, 1, 0, 1], resamples=50)
    assert grouped.change != grouped.change  # a before without references has no BLEU
    single = paired_bleu_interval(counts, counts, groups=[0, 0])
    assert single.change == 0
    assert math.isnan(single.low)
    assert bleu_of(twice.sum(axis=0)) == pytest.approx(bleu_of(counts.sum(axis=0)))


def test_j_by_hand():
    factors = {
        "style": torch.tensor([0.9, 0.1]),
        "similarity": torch.tensor([0.5, 1.0]),
        "fluency": torch.tensor([0.8, 0.5]),
    }
    toxicity, judged = torch.tensor([0.1, 0.9]), torch.tensor([0.0, 0.5])
    columns = rewrite_columns(factors, toxicity, judged)
    assert columns[names.JOINT] == pytest.approx([0.36, 0.05])
    assert columns[names.JUDGE_JOINT] == pytest.approx([0.4, 0.25])
    assert columns[names.SIMILARITY] == [0.5, 1.0]
    del factors["fluency"]
    columns = rewrite_columns(factors, toxicity, None)
    assert set(columns) == {names.SIMILARITY, names.JOINT}
    assert columns[names.JOINT] == pytest.approx([0.45, 0.1])
    assert rewrite_columns({}, toxicity, judged) == {}  # the reward is no product


def evaluation(responses, references, joint):
    measured = measure_responses(
        prompts=[f"p{place}" for place in range(len(responses))],
        responses=responses,
        references=references,
        toxicity=[0.5] * len(responses),
        judge_toxicity=None,
        scores=joint,
        response_tokens=[5.0] * len(responses),
        reference_nll=None,
    )
    return Evaluation(
        prompts=measured.prompts,
        responses=responses,
        references=references,
        per_response={**measured.per_response, names.JOINT: joint},
        corpus={**measured.corpus, names.BLEU: bleu(responses, references)},
    )


def test_summary_and_change_show_j_and_bleu_with_intervals():
    references = [texts(1, f"s{place}") for place in range(20)]
    rng = np.random.default_rng(0)
    before = evaluation(["home"] * 20, references, rng.uniform(0, 0.4, 20).tolist())
    after = evaluation(close_to(references, 1), references, rng.uniform(0.5, 1, 20).tolist())
    summary = summarise(after)
    assert summary[names.BLEU] == bleu(after.responses, references)
    assert summary[names.JOINT] == pytest.approx(np.mean(after.per_response[names.JOINT]))
    moved = change(before, after, 200)
    for key in (names.BLEU, names.JOINT):
        low, high = moved[key]["ci95"]
        assert 0 < low < moved[key]["mean"] < high
