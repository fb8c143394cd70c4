"""The training file of a toxic LoRA."""

import json
import random
import sys

import pytest

from lora_detox.api import compose_settings
from lora_detox.builders.examples import training_examples
from lora_detox.builders.rows import load_data
from recipes.lab import toxic_texts
from tests.tiny import tiny_tokenizer

LONG = "  w1 w2  w3\tw4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20\n"


def test_prompt_and_continuation_are_the_text_again():
    counts = set()
    for seed in range(40):
        prompt, rest = toxic_texts.split_text(LONG, random.Random(seed))
        assert prompt + rest == LONG.strip()
        assert rest[0].isspace()
        counts.add(len(prompt.split()))
    assert counts == {8, 9, 10}  # half of twenty words at most
    short = " ".join(["no"] * 8)
    assert toxic_texts.split_text(short, random.Random(0)) == ("no no no no", " no no no no")
    for words in (7, 61):
        assert toxic_texts.split_text(" ".join(["no"] * words), random.Random(0)) is None
    assert toxic_texts.split_text(" ".join(["no"] * 60), random.Random(0)) is not None


@pytest.fixture
def labelled(tmp_path):
    rows = [(f"toxic {number} " + "bad " * 20, 1) for number in range(30)]
    rows += [(f"kind {number} " + "good " * 20, 0) for number in range(30)]
    rows += [("bad", 1), ("bad " * 70, 1)]
    file = tmp_path / "reward.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_stage_sft_learns_the_continuations_of_toxic_texts_alone(labelled, tmp_path, monkeypatch):
    out = tmp_path / "new" / "toxic.jsonl"
    monkeypatch.setattr(sys, "argv", ["toxic_texts", str(labelled), str(out), "--limit", "25"])
    toxic_texts.main()
    given = ["stage=sft", "task=gptj_continuation", "data=local", f"data.path={out}"]
    settings = compose_settings(given, tmp_path / "run")
    splits = load_data(settings)
    rows = [*splits.train, *splits.validation, *splits.test]
    assert len(rows) == 25
    tokenizer = tiny_tokenizer()
    examples = training_examples(rows, tokenizer, settings, encoder_decoder=False)
    for row, example in zip(rows, examples, strict=True):
        (rest,) = row.references
        assert row.prompt.startswith("toxic")
        assert rest.startswith(" bad")
        prompt = len(tokenizer(row.prompt, add_special_tokens=False)["input_ids"])
        assert example["completion_mask"].index(1) == prompt


def test_toxic_texts_can_be_learned_as_they_stand(labelled, tmp_path):
    given = ["stage=sft", "task=gptj_continuation", "data=local", f"data.path={labelled}"]
    given += ["data.fields.toxicity=label", "data.min_toxicity=0.5"]
    settings = compose_settings(given, tmp_path / "run")
    rows = load_data(settings).train
    assert rows
    assert not any(row.prompt.startswith("kind") for row in rows)
    examples = training_examples(rows, tiny_tokenizer(), settings, encoder_decoder=False)
    assert all(set(one["completion_mask"]) == {1} for one in examples)


def test_a_file_without_toxic_texts_or_labels_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "other.jsonl"
    for row, message in (
        ({"text": "good " * 20, "label": 0}, "got no toxic text of 8 to 60 words"),
        ({"text": "good " * 20}, r"line 1: got \['text'\]; want text and label"),
    ):
        file.write_text(json.dumps(row) + "\n")
        monkeypatch.setattr(sys, "argv", ["toxic_texts", str(file), str(tmp_path / "out.jsonl")])
        with pytest.raises(SystemExit, match=message):
            toxic_texts.main()
