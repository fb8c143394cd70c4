"""The synthetic corpus: disjoint splits, fixed rows, plenty of distinct texts."""

import itertools
import time
from typing import Any

import pytest

from lora_detox.embedded import vocabulary
from lora_detox.embedded.corpus import (
    DEFAULT_COUNTS,
    SPLITS,
    comment_rows,
    dialogue_examples,
    dialogue_rows,
    normalise,
    sentences,
)
from lora_detox.embedded.labelled import labelled_rows
from lora_detox.embedded.rewrites import COPIED_FRACTION, learned_pairs, rewrite_rows

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def dialogues() -> Rows:
    """Default dialogues of every split."""
    return {split: dialogue_rows(split) for split in SPLITS}


@pytest.fixture(scope="module")
def comments() -> Rows:
    """Default comments of every split."""
    return {split: comment_rows(split) for split in SPLITS}


def units(dialogues: list[dict[str, Any]], comments: list[dict[str, Any]]) -> set[str]:
    """All sentences of the rows, and the two halves of each comment."""
    found: set[str] = set()
    for row in dialogues:
        found.update(sentences(row["dialogue"]))
        found.update(itertools.chain(*map(sentences, row["summaries"])))
    for row in comments:
        found.update((normalise(row["prompt"]), normalise(row["continuation"])))
        found.update(sentences(f"{row['prompt']} {row['continuation']}"))
    return found


def test_splits_share_no_sentence(dialogues: Rows, comments: Rows) -> None:
    found = {split: units(dialogues[split], comments[split]) for split in SPLITS}
    assert len(found["test"]) > 5000
    for one, other in itertools.combinations(SPLITS, 2):
        assert found[one].isdisjoint(found[other])


def test_quotes_and_labelled_texts_share_no_sentence() -> None:
    quoted = {
        split: {
            sentence
            for example in dialogue_examples(split, 200)
            for sentence in sentences(example.quoting or "")
        }
        for split in SPLITS
    }
    labelled = {
        split: {
            normalise(row["text"]) for half in (0, 1) for row in labelled_rows(split, half, 200)
        }
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert quoted[one].isdisjoint(quoted[other])
        assert labelled[one].isdisjoint(labelled[other])


def test_halves_share_no_text() -> None:
    first, second = ({row["text"] for row in labelled_rows("train", h, 1000)} for h in (0, 1))
    assert first.isdisjoint(second)
    with pytest.raises(ValueError, match="0 or 1"):
        labelled_rows("train", 2, 1)


def test_default_counts_and_fields(dialogues: Rows, comments: Rows) -> None:
    for split in SPLITS:
        assert len(dialogues[split]) == len(comments[split]) == DEFAULT_COUNTS[split]
        assert all(set(r) == {"id", "dialogue", "summaries", "toxicity"} for r in dialogues[split])
        assert all(set(r) == {"id", "prompt", "continuation", "toxicity"} for r in comments[split])
        assert len({row["id"] for row in dialogues[split]}) == DEFAULT_COUNTS[split]


def test_rows_are_deterministic_and_prefixes(dialogues: Rows, comments: Rows) -> None:
    assert dialogue_rows("test", 20) == dialogues["test"][:20]
    assert comment_rows("test", 20) == comments["test"][:20]
    assert labelled_rows("test", 1, 20) == labelled_rows("test", 1, 40)[:20]
    assert dialogue_rows("test", 0) == []


def test_toxicity_is_planted_and_sometimes_missing(dialogues: Rows, comments: Rows) -> None:
    for rows in (dialogues["train"], comments["train"]):
        known = [row["toxicity"] for row in rows if row["toxicity"] is not None]
        assert all(0.01 <= value <= 0.2 or 0.55 <= value <= 0.95 for value in known)
        assert 0.01 < 1 - len(known) / len(rows) < 0.03
        assert 0.5 < sum(value > 0.3 for value in known) / len(known) < 0.7


def test_dialogue_shape(dialogues: Rows) -> None:
    assert len(vocabulary.FEMALE_NAMES + vocabulary.MALE_NAMES) >= 80
    assert len(vocabulary.DOMAINS) >= 12
    for row in dialogues["test"]:
        assert 4 <= len(row["dialogue"].splitlines()) <= 7
        assert 1 <= len(row["summaries"]) <= 2
        assert all(len(sentences(summary)) == 2 for summary in row["summaries"])


def test_quoting_summary_repeats_a_line_of_the_dialogue() -> None:
    rude = [example for example in dialogue_examples("test", 200) if example.quoting]
    assert len(rude) > 90
    for example in rude:
        quote = (example.quoting or "").split('"')[1]
        assert quote in example.dialogue.lower() or quote[1:] in example.dialogue
        assert all(quote not in summary for summary in example.summaries)


def test_at_least_20000_distinct_texts() -> None:
    texts = {row["dialogue"] for row in dialogue_rows("train", 10000)}
    texts |= {f"{row['prompt']} {row['continuation']}" for row in comment_rows("train", 10000)}
    assert len(texts) == 20000


def test_default_rows_are_fast() -> None:
    start = time.process_time()
    for split in SPLITS:
        dialogue_rows(split)
        comment_rows(split)
    assert time.process_time() - start < 4.0, "about 1 s on an idle core"


def test_labelled_rows_have_short_and_hard_negatives() -> None:
    rows = [row for half in (0, 1) for row in labelled_rows("train", half, 1500)]
    assert 0.3 < sum(row["label"] for row in rows) / len(rows) < 0.6
    civil = [row["text"] for row in rows if row["label"] == 0]
    assert "" in civil
    assert any("useless" in text for text in civil)
    assert any(len(text.split()) == 1 for text in civil)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="validation"):
        comment_rows("valid", 1)


def test_rewrites_say_the_same_without_insults() -> None:
    insults = {*vocabulary.INSULT_ADJ, *vocabulary.INSULT_NOUN}
    rows = {split: rewrite_rows(split, 120) for split in SPLITS}
    texts = {
        split: {normalise(text) for row in of_split for text in (row["toxic"], *row["neutral"])}
        for split, of_split in rows.items()
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert texts[one].isdisjoint(texts[other])
    for row in itertools.chain(*rows.values()):
        assert insults & set(normalise(row["toxic"]).replace(",", " ").split())
        assert row["neutral"]
        for text in row["neutral"]:
            words = normalise(text).replace(",", " ").split()
            assert not insults & set(words)
            assert len(set(words) & set(normalise(row["toxic"]).replace(",", " ").split())) >= 2
    assert rewrite_rows("test", 10) == rows["test"][:10]


def test_the_miniature_learned_to_rewrite_about_half() -> None:
    pairs = learned_pairs(300)
    copied = sum(pair["neutral"] == [pair["toxic"]] for pair in pairs) / len(pairs)
    assert copied == pytest.approx(COPIED_FRACTION, abs=0.1)
    assert [pair["toxic"] for pair in pairs] == [row["toxic"] for row in rewrite_rows("train", 300)]
