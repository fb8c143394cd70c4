"""What the reference says of keys, from files of conf/ and the schema."""

from typing import Any

import pytest

from lora_detox.__main__ import conf_dir
from lora_detox.choices import Ship
from lora_detox.settings import DataSettings, known_keys
from lora_detox.settings.comments import heading, key_comments
from lora_detox.settings.reference import reference_keys, reference_options, type_words

FILE = """\
# @package _global_
# python -m lora_detox task=mine
# One task.
first: 1   # counts things
text: "a # b"              # holds a hash
long: [1, 2]               # goes on
                           # below
# stands above
above: {a: 1,
        b: 2}
fields:                    # names of columns
  id: id
  prompt: text             # what is read
bare: 3
"""


@pytest.fixture(scope="module")
def keys():
    return {key.name: key for key in reference_keys(conf_dir())}


def test_comments_are_found_beside_below_and_above_keys(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    assert heading(path) == "python -m lora_detox task=mine\nOne task."
    assert key_comments(path) == {
        "first": "counts things",
        "text": "holds a hash",
        "long": "goes on below",
        "above": "stands above",
        "fields": "names of columns",
        "fields.id": "names of columns",
        "fields.prompt": "what is read",
    }


def test_every_key_has_a_type_and_a_meaning(keys):
    assert list(keys) == known_keys()
    assert [name for name, key in keys.items() if not (key.type and key.meaning)] == []


def test_range_default_and_meaning_are_those_of_schema_and_files(keys):
    coefficient = keys["algorithm.kl.coef"]
    assert coefficient.range == "0 or more (score units per nat)"
    assert coefficient.default == "0.2"
    assert coefficient.meaning.startswith("KL coefficient at the start")
    assert keys["algorithm.learning_rate"].default == "0.001"
    assert keys["data.fields.prompt"].meaning.startswith("column names")
    assert keys["evaluation.sets"].default == "{toxic: {...}, benign: {...}}"
    assert "\n" not in keys["task.template"].default


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float | None, "number, null"),
        (list[str], "list of text"),
        (list[float | None] | None, "list of number or null, null"),
        (dict[str, DataSettings], "mapping of name to settings"),
        (dict[str, float], "mapping of name to number"),
        (Ship, "best, end"),
        (bool, "true, false"),
        (Any, "any"),
    ],
)
def test_types_in_words(annotation, words):
    assert type_words(annotation) == words


def test_every_option_says_what_it_is():
    options = reference_options(conf_dir())
    assert len(options) > 90
    assert [one for one in options if not one.meaning] == []
