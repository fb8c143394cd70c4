"""BLEU against sacreBLEU, whose counts and brevity penalty are its own."""

import random

import pytest
from sacrebleu.metrics import BLEU

from lora_detox.metrics.bleu import bleu
from lora_detox.text.words import loose_words


def sentences(count, seed, least=4):
    draws = random.Random(seed)
    words = [f"word{place}" for place in range(14)]
    return [" ".join(draws.choices(words, k=draws.randint(least, 18))) for _ in range(count)]


def sacrebleu_of(responses, references):
    """Of the same words, with the same floor where no n-gram is in common."""
    plain = [" ".join(loose_words(one)) for one in responses]
    most = max(map(len, references))
    streams = [
        [" ".join(loose_words(refs[place])) if place < len(refs) else None for refs in references]
        for place in range(most)
    ]
    scorer = BLEU(tokenize="none", smooth_method="floor", smooth_value=0.1, force=True)
    return scorer.corpus_score(plain, streams).score / 100


@pytest.mark.parametrize("seed", range(8))
def test_one_reference_or_several_give_the_same_number(seed):
    responses = sentences(30, seed)
    one = [[text] for text in sentences(30, seed + 100)]
    several = [sentences(1 + place % 3, seed * 50 + place) for place in range(30)]
    for references in (one, several):
        assert bleu(responses, references) == pytest.approx(sacrebleu_of(responses, references))


def test_real_sentences_with_case_and_punctuation():
    responses = [
        "She asks him to come home, and he agrees.",
        "They talk about the plan for Saturday.",
        "Tom's train is late; Ann waits.",
    ]
    references = [
        ["She asked him to come home and he agreed.", "He agrees to come home."],
        ["They talk about their plan for Saturday night."],
        ["Ann waits because Tom's train is late."],
    ]
    assert bleu(responses, references) == pytest.approx(sacrebleu_of(responses, references))


def test_short_responses_pay_the_same_brevity_penalty():
    references = [[text] for text in sentences(20, 3, least=12)]
    responses = [" ".join(refs[0].split()[:6]) for refs in references]
    ours = bleu(responses, references)
    assert ours < 0.6
    assert ours == pytest.approx(sacrebleu_of(responses, references))
