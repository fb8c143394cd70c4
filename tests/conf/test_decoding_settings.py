"""What is wrong about a decoding is said before anything heavy is imported."""

import pytest

from lora_detox import api
from lora_detox.errors import SettingsError

EVALUATE = ["stage=evaluate", "task=gptj_continuation"]


def entry(text):
    return [*EVALUATE, f"evaluation.models=[{{path: 'embedded:policy', decoding: {text}}}]"]


REFUSED = {
    "training": (["decoding=bad_words"], "decoding: got bad_words; training .*want decoding=plain"),
    "sft": (["stage=sft", "decoding=best_of_n"], "decoding: got best_of_n; .*stage=evaluate"),
    "one response": (
        [*EVALUATE, "decoding=best_of_n", "decoding.n=1"],
        "decoding.n: got 1, want 2",
    ),
    "greedy": (
        [*EVALUATE, "decoding=best_of_n", "evaluation.greedy=true"],
        "evaluation.greedy: got true; best of n",
    ),
    "no alpha": (
        [*EVALUATE, "decoding=anti_expert", "decoding.adapter=x", "decoding.alpha=0"],
        "decoding.alpha: got 0.0, want a number above 0",
    ),
    "no adapter": (
        [*EVALUATE, "decoding=anti_expert"],
        "decoding.adapter: got None; want the folder .*stage=sft",
    ),
    "no file": (
        [*EVALUATE, "decoding=bad_words", "decoding.words=none.txt"],
        "decoding.words: there is no file none.txt",
    ),
    "no words": ([*EVALUATE, "decoding=bad_words", "decoding.size=0"], "decoding.size: got 0"),
    "no line": (
        [*EVALUATE, "decoding=civil_prefix", "decoding.prefix=' '"],
        "prefix: got an em",
    ),
    "layers": (
        [*EVALUATE, "decoding=projection", "decoding.layers=upper"],
        "decoding.layers: got upper, want last_half",
    ),
    "too many layers": (
        [*EVALUATE, "decoding=projection", "decoding.layers=1.5"],
        "decoding.layers: got 1.5",
    ),
    "quantized": (
        [*EVALUATE, "decoding=projection", "quantization=nf4"],
        "quantization=nf4: decoding projection changes the weights",
    ),
    "unread": (
        [*EVALUATE, "decoding.n=8"],
        "decoding.n: decoding=plain does not read it",
    ),
    "unread beside": (
        [*EVALUATE, "decoding=direction", "decoding.rank=8"],
        "decoding.rank: decoding=direction does not read it",
    ),
    "entry of no name": (entry("{size: 5}"), "evaluation.models.decoding: got .*want a mapping"),
    "entry of another name": (entry("best"), "evaluation.models.decoding: got 'best', want"),
    "entry with an unread key": (
        entry("{name: bad_words, n: 5}"),
        "evaluation.models.decoding.n: decoding bad_words reads words, size",
    ),
    "entry with another type": (
        entry("{name: best_of_n, n: many}"),
        "evaluation.models.decoding: got .*many",
    ),
    "entry out of range": (
        entry("{name: direction, strength: -1}"),
        "evaluation.models.decoding.strength: got -1.0, want 0 or more",
    ),
    "entry of one response": (
        entry("{name: best_of_n, n: 1}"),
        "evaluation.models.decoding.n: got 1, want 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be(case):
    overrides, message = REFUSED[case]
    with pytest.raises(SettingsError, match=message):
        api.compose_settings(overrides)


def test_a_key_of_the_group_is_for_the_entries_that_read_it():
    settings = api.compose_settings([*entry("best_of_n"), "decoding.n=8"])
    assert settings.decoding.n == 8
