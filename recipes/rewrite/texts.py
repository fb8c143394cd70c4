"""Pairs for training, validation and test, and sentences with and without faults."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from lora_detox.report.jsonl import write_text_atomic
from recipes.lab.pairs import in_reward_half

VALIDATION = 300
"""Pairs that states of training are compared on."""
Pair = dict[str, Any]
"""`toxic`, and `neutral`: one to three human rewrites."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Files that a run reads.

    Attributes:
        folder: where they are.
    """

    folder: Path

    def pairs(self, split: str) -> Path:
        """Pairs of train, validation or test."""
        return self.folder / f"{split}.jsonl"

    @property
    def fluency(self) -> Path:
        """Sentences (`text`, `label`): 1 with a fault, 0 without."""
        return self.folder / "fluency.jsonl"


def write_texts(source: Path, folder: Path, *, test: int) -> Texts:
    """Write the files where they are missing.

    Of the test pairs the judge has read neither side, and training shares no text with them.

    Args:
        source: paradetox.pairs.jsonl.gz.
        folder: where they go.
        test: test pairs at most.

    Returns:
        Where everything is.
    """
    texts = Texts(folder=folder)
    if not texts.fluency.is_file():
        splits = split_pairs(read_pairs(source), test)
        for split, pairs in splits.items():
            _write(texts.pairs(split), pairs)
        _write(texts.fluency, fluency_rows(splits["train"]))  # last: all are there
    return texts


def read_pairs(file: Path) -> list[Pair]:
    """Pairs of a corpus in its order, without rewrites that are the sentence itself."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        rows = list(map(json.loads, lines))
    pairs = []
    for row in rows:
        neutral = [text for text in row["neutral"] if text != row["toxic"]]
        if neutral:
            pairs.append({"toxic": row["toxic"], "neutral": neutral})
    return pairs


def split_pairs(pairs: Sequence[Pair], test: int) -> dict[str, list[Pair]]:
    """Train, validation and test.

    Args:
        pairs: of the corpus.
        test: test pairs at most, chosen by a hash among those that only the reward's half has.

    Returns:
        Split -> pairs; none of train or validation has a text of test.
    """
    ordered = sorted(pairs, key=lambda pair: _number(pair["toxic"]))
    unseen = [pair for pair in ordered if all(map(in_reward_half, _sides(pair)))]
    chosen = unseen[:test]
    taken = {text for pair in chosen for text in _sides(pair)}
    rest = [pair for pair in ordered if taken.isdisjoint(_sides(pair))]
    count = min(VALIDATION, len(rest) // 10)
    return {"train": rest[count:], "validation": rest[:count], "test": chosen}


def fluency_rows(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Both sides of the pairs, each once as it is and once with faults.

    Toxic sentences are among them in both states, so that fluency is not taken for civility.

    Args:
        pairs: of training.

    Returns:
        Rows of `text` and `label`, 1 with faults.
    """
    rng = Random("faults")
    sentences = list(dict.fromkeys(text for pair in pairs for text in _sides(pair)))
    rows = []
    for sentence in sentences:
        broken = corrupted(sentence, rng)
        if broken is not None:
            rows += [{"text": sentence, "label": 0}, {"text": broken, "label": 1}]
    rng.shuffle(rows)
    return rows


def corrupted(sentence: str, rng: Random) -> str | None:
    """A sentence with words dropped, put elsewhere or repeated.

    Args:
        sentence: of any length.
        rng: chance.

    Returns:
        Another text; None where the sentence has fewer than four words.
    """
    words = sentence.split()
    if len(words) < 4:
        return None
    for _ in range(20):
        fault = rng.choice((_dropped, _swapped, _moved, _repeated))
        broken = fault(words, rng)
        if rng.random() < 0.3:  # some have two kinds of faults
            broken = _repeated(_dropped(broken, rng), rng)
        if broken != words:
            return " ".join(broken)
    return None


def _dropped(words: list[str], rng: Random) -> list[str]:
    """Without a quarter of its words, at least one, never all."""
    count = max(1, round(0.25 * len(words)))
    gone = set(rng.sample(range(len(words)), min(count, len(words) - 1)))
    return [word for place, word in enumerate(words) if place not in gone]


def _swapped(words: list[str], rng: Random) -> list[str]:
    """With neighbours exchanged, in every fifth place or so."""
    swapped = list(words)
    for _ in range(max(1, len(words) // 5)):
        place = rng.randrange(len(words) - 1)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    return swapped


def _moved(words: list[str], rng: Random) -> list[str]:
    """With a stretch of three to six words shuffled."""
    size = min(len(words), rng.randint(3, 6))
    start = rng.randint(0, len(words) - size)
    stretch = words[start : start + size]
    rng.shuffle(stretch)
    return [*words[:start], *stretch, *words[start + size :]]


def _repeated(words: list[str], rng: Random) -> list[str]:
    """With one to three words said again, once or twice."""
    size = min(len(words), rng.randint(1, 3))
    start = rng.randint(0, len(words) - size)
    again = words[start : start + size] * rng.randint(1, 2)
    return [*words[: start + size], *again, *words[start + size :]]


def _sides(pair: Pair) -> list[str]:
    return [pair["toxic"], *pair["neutral"]]


def _number(text: str) -> int:
    return int(hashlib.sha1(f"rewrite {text}".encode()).hexdigest(), 16)


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(file, "".join(_lines(rows)))
