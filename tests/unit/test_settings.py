"""Values and combinations that cannot work are found by plain code, before anything heavy."""

import copy
import math
from dataclasses import fields, is_dataclass

import pytest
from omegaconf import OmegaConf

from lora_detox.api import compose_settings
from lora_detox.choices import Action, Baseline
from lora_detox.errors import SettingsError
from lora_detox.ranges import (
    change,
    fraction,
    inner_fraction,
    not_negative,
    positive,
    positive_fraction,
    range_of,
)
from lora_detox.settings import Settings, check_settings, closest_keys, known_keys, settings_yaml

TERMS = ("toxicity", "rouge", "length", "similarity", "fluency")
UNRANGED = {"data.split_seed", "evaluation.seed"}  # any number is a seed
UNRANGED |= {f"{key}.terms.{term}" for key in ("reward", "judge") for term in TERMS}  # finite


@pytest.fixture(scope="module")
def composed():
    return compose_settings(["task=gptj_continuation"], "run")


@pytest.fixture
def settings(composed, tmp_path):
    """Of one's own, to change."""
    own = copy.deepcopy(composed)
    own.run_dir = str(tmp_path / "run")
    return own


def assign(settings, key, value):
    *path, last = key.split(".")
    for part in path:
        settings = getattr(settings, part)
    setattr(settings, last, value)


def number_fields(node, prefix=""):
    """Keys of the schema that hold a number, each with its field."""
    for entry in fields(node):
        if is_dataclass(entry.type):
            yield from number_fields(entry.type, f"{prefix}{entry.name}.")
        elif entry.type in (int, float, int | None, float | None):
            yield prefix + entry.name, entry


NUMBERS = dict(number_fields(Settings))


def test_every_number_has_a_range():
    assert {key for key, entry in NUMBERS.items() if range_of(entry) is None} == UNRANGED


@pytest.mark.parametrize("key", sorted(NUMBERS.keys() - UNRANGED))
def test_a_number_out_of_its_range_is_refused_by_its_key(settings, key):
    allowed = range_of(NUMBERS[key])
    outside = [float("nan"), allowed.least - 0.1, allowed.most + 0.1]
    outside += [] if allowed.with_least else [allowed.least]
    outside += [] if allowed.with_most else [allowed.most]
    for value in outside:
        if math.isinf(value):
            continue
        assign(settings, key, value)
        with pytest.raises(SettingsError, match=f"^{key}: got {value}, want {allowed.words}"):
            check_settings(settings)


@pytest.mark.parametrize("key", sorted(NUMBERS.keys() - UNRANGED))
def test_a_whole_number_of_more_than_64_bits_is_refused_by_its_key(settings, key):
    assign(settings, key, 2**63)
    with pytest.raises(SettingsError, match=f"^{key}: got 9223372036854775808, want "):
        check_settings(settings)


@pytest.mark.parametrize(
    ("field", "inside", "outside", "words"),
    [
        (positive(1), [1e-9, 5, 1e9], [0, -1], "a number above 0"),
        (not_negative(1), [0, 7], [-1e-9], "0 or more"),
        (fraction(1), [0, 0.5, 1], [-1e-9, 1.1], "a number from 0 to 1"),
        (positive_fraction(1), [1e-9, 1], [0, 1.1], "a number above 0, at most 1"),
        (inner_fraction(1), [1e-9, 0.9], [0, 1], "a number between 0 and 1"),
        (change(1), [-0.9, 0, 3], [-1, -2], "a number above -1"),
    ],
)
def test_a_range_holds_what_its_words_say(field, inside, outside, words):
    allowed = range_of(field)
    assert allowed.words.startswith(words)
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, [*outside, float("nan")]))


def test_the_sets_of_an_evaluation_keep_their_ranges_too(settings):
    settings.evaluation.sets["toxic"].limit = 0
    with pytest.raises(SettingsError, match=r"evaluation.sets.toxic.limit: got 0, .*\(rows\)"):
        check_settings(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.split_fractions": [0.5, 0.5]}, "data.split_fractions: got .* sum to 1"),
        ({"data.split_fractions": [0.5, 0.5, 0.5]}, "data.split_fractions: got .* sum to 1"),
        ({"data.query_tokens": [5]}, "data.query_tokens: got"),
        ({"generation.response_tokens": [0, 4]}, "generation.response_tokens: got"),
        ({"generation.response_tokens": [1, 2**40]}, "response_tokens: got .* most <= 1,000,000"),
        ({"generation.min_new_tokens": 21}, "generation.min_new_tokens=21 exceeds the least"),
        ({"generation.top_p": 0}, "generation.top_p: got 0"),
        ({"generation.temperature": 1e-30}, "generation.temperature: got .* 0.0001 to 10000"),
        (
            {"budget.controller.start_rollouts": 2**31},
            "start_rollouts: got .* want 0 to 1,000",
        ),
        ({"evaluation.validation_samples": 2**31}, "validation_samples: got .* want 1 to 10,000"),
        ({"data.max_query_tokens": 2**63}, "data.max_query_tokens: got .* want 1 to 1,000,000"),
        ({"evaluation.resamples": 2**31}, "evaluation.resamples: got .* want 1 to 1,000,000"),
        ({"budget.fallback": [1.0, 0.5]}, "budget.fallback: got .* between 0 and 1"),
        ({"budget.fallback": [0.5, 0.9]}, "budget.fallback: got .* want falling numbers"),
        ({"budget.extrapolation": [1.0, 1.5]}, "budget.extrapolation: got .* above 1 and up to 3"),
        ({"budget.extrapolation": [1.5, 1.25]}, "budget.extrapolation: got .* want rising"),
        (
            {"budget.controller.multipliers": {"rouge_l": 1.0}},
            "budget.controller.multipliers.rouge_l: got rouge_l, want one of perplexity, rougeL",
        ),
        (
            {"budget.controller.multipliers": {"ref_kl": -1.0}},
            "budget.controller.multipliers.ref_kl: got -1, want 0 or more",
        ),
        (
            {"budget.controller.multipliers": {"symbols": 1.0}},
            "budget.controller.multipliers.symbols: got 1, but budget.symbols=null binds",
        ),
        ({"task.template": "{prompt} {prompt}"}, "task.template: got"),
        (
            {"algorithm.expert.prefix_credit_every": 2, "algorithm.action": Action.response},
            "algorithm.expert.prefix_credit_every: got 2; algorithm.action=response",
        ),
        ({"algorithm.average": 1.0}, "algorithm.average: got 1.0, want a number between 0 and 1"),
        (
            {"algorithm.baseline": Baseline.leave_one_out},
            "algorithm.responses_per_prompt: got 1; algorithm.baseline=leave_one_out",
        ),
        (
            {"algorithm.baseline": Baseline.group_zscore},
            "algorithm.responses_per_prompt: got 1; algorithm.baseline=group_zscore",
        ),
        ({"budget.words": [1.0]}, r"budget.words: got \[1.0\], want \[least, most\]"),
        ({"budget.words": [1.0, 0.9]}, "budget.words: got .* most null or no less than least"),
        ({"budget.words": [None, 1.0]}, "budget.words: got"),
        ({"budget.words": [0.0, None]}, "budget.words: got"),
        (
            {"budget.length_most": 0.8},
            "budget.length_most: got 0.8, .* least of budget.length, 0.9",
        ),
        (
            {"budget.length_most": 1.1, "budget.words": [1.2, None]},
            "budget.length_most: got 1.1, .* least of budget.words, 1.2",
        ),
        ({"budget.words": [0.5, 0.6]}, "budget.words: got .* below budget.length=0.9"),
        ({"judge.length_debias": True}, "judge.length_debias: only training reads it"),
        (
            {"algorithm.responses_per_prompt": 5},
            "algorithm.responses_per_prompt=5 does not divide algorithm.rollout_batch_size=32",
        ),
        ({"reward.terms.rouge": float("nan")}, "reward.terms.rouge: got nan, want a finite"),
        ({"reward.terms.toxicity": 0.0}, "reward.terms: every weight is 0"),
        ({"judge.terms.rouge": 1.0}, "judge.terms: a judge measures toxicity alone"),
        ({"reward.path": None}, "reward.path: got null; want a classifier, or .*reward.function"),
        (
            {"reward.path": None, "reward.function": "m:f", "judge.path": None},
            "judge.path: got null; with reward.function",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_key(settings, changes, message):
    for key, value in changes.items():
        assign(settings, key, value)
    with pytest.raises(SettingsError, match=message):
        check_settings(settings)


@pytest.mark.parametrize(
    ("given", "microbatch"),
    [
        (["algorithm.minibatch_size=4"], 4),
        (["algorithm.minibatch_size=16", "algorithm.microbatch_size=32"], 16),
        (["algorithm.minibatch_size=32"], 16),
        (["algorithm.minibatch_size=8", "algorithm.microbatch_size=2"], 2),
    ],
)
def test_the_microbatch_follows_a_smaller_minibatch(given, microbatch):
    assert compose_settings(given, "run").algorithm.microbatch_size == microbatch


@pytest.mark.parametrize("mark", ["summary.json", "metrics.jsonl", "checkpoints", "adapter"])
def test_a_folder_with_a_run_is_only_for_resuming(settings, tmp_path, mark):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    check_settings(settings)
    (folder / mark).touch() if "." in mark else (folder / mark).mkdir()
    with pytest.raises(SettingsError, match=f"already holds another run .{mark}.; .*resume=true"):
        check_settings(settings)
    settings.resume = True
    check_settings(settings)


def test_a_mistyped_key_finds_the_one_that_was_meant():
    groups = ["policy", "algorithm"]
    assert closest_keys("algorithm.leraning_rate", groups)[0] == "algorithm.learning_rate"
    assert closest_keys("polcy", groups)[0] == "policy"
    assert closest_keys("learning_rate", groups)[0].endswith("learning_rate")  # the group forgotten
    assert "algorithm.iterations" in closest_keys("iterations", groups)
    assert closest_keys("xyzzy", groups) == []


def test_the_written_yaml_holds_every_key(settings):
    written = OmegaConf.create(settings_yaml(settings))
    for key in known_keys():
        value = settings
        for part in key.split("."):
            value = getattr(value, part)
        assert OmegaConf.select(written, key, default="absent") == value, key
