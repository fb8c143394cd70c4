"""Film reviews as labelled texts: halves that share no review, and pieces as short as endings."""

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lora_detox.report.jsonl import write_text_atomic

HALVES = ("reward", "judge")
WHOLE = 100
"""Words of a review that are read as one text, from its beginning."""
PIECES = 6
"""Pieces that a review gives beside that."""
LENGTHS = (3, 24)
"""Words of a piece, least and most: an ending of 4 to 20 tokens has 2 to 16."""
LEARNED = 30
"""Words of a text behind a prefix: an opening and its ending."""
TESTED_EVERY = 5
"""Of the held-out reviews one in so many is in the test sets: 1,000."""


def write_reviews(data: Path, folder: Path) -> None:
    """Write the labelled texts of both halves and of the test sets where they are missing.

    Every review of `imdb.val` is in one half by a hash of its text, so what the judge learned from
    the reward's classifier never saw; the test sets are reviews of `imdb.test`.

    Args:
        data: folder of the corpora.
        folder: where `reward.jsonl`, `judge.jsonl`, `prefixed.jsonl` and `test_sets/` go.
    """
    for half in HALVES:
        target = folder / f"{half}.jsonl"
        if not target.is_file():
            own = _reviews_of(half, data)
            _write(target, labelled(own, seed=half, pieces=PIECES, whole=True))
    if not (target := prefixed_file(folder)).is_file():
        _write(target, prefixed(_reviews_of("reward", data)))
    tested = list(rows(data / "imdb.test.jsonl.gz"))[::TESTED_EVERY]
    for name, target in test_sets(folder).items():
        if not target.is_file():
            whole = name == "reviews"
            _write(target, labelled(tested, seed=name, pieces=0 if whole else 2, whole=whole))


def test_sets(folder: Path) -> dict[str, Path]:
    """Name -> file of the held-out texts: beginnings of reviews, and pieces."""
    return {name: folder / "test_sets" / f"{name}.jsonl" for name in ("reviews", "pieces")}


def prefixed_file(folder: Path) -> Path:
    """File of the texts that begin with the sign of their review."""
    return folder / "prefixed.jsonl"


def half_of(text: str) -> str:
    """The half that a review is in, by its text."""
    return HALVES[int(hashlib.sha1(text.encode()).hexdigest(), 16) % 2]


def labelled(
    reviews: Iterable[dict[str, Any]], *, seed: str, pieces: int, whole: bool
) -> Iterator[dict[str, Any]]:
    """Texts of reviews, each with the label of its review.

    A piece begins anywhere, as what follows an opening does. A classifier of whole reviews calls
    short neutral text positive; one that read pieces gives it an even chance.

    Args:
        reviews: rows with `text` and `sentiment` (1 = positive).
        seed: of the draws.
        pieces: drawn from each review.
        whole: also its beginning.

    Yields:
        `text` and `negative`, 1 where the review is.
    """
    draw = random.Random(seed)
    for row in reviews:
        words, negative = row["text"].split(), 1 - row["sentiment"]
        if whole:
            yield {"text": " ".join(words[:WHOLE]), "negative": negative}
        for _ in range(pieces):
            size = draw.randint(*LENGTHS)
            start = draw.randint(0, max(0, len(words) - size))
            yield {"text": " ".join(words[start : start + size]), "negative": negative}


def prefixed(reviews: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The beginning and a piece of each review, behind the prefix of its label.

    Args:
        reviews: rows with `text` and `sentiment` (1 = positive).

    Yields:
        `text`, as in "[positive] I have seen this film".
    """
    draw = random.Random("prefixed")
    for row in reviews:
        words, sign = row["text"].split(), "positive" if row["sentiment"] else "negative"
        for start in (0, draw.randint(0, max(0, len(words) - LEARNED))):
            yield {"text": f"[{sign}] " + " ".join(words[start : start + LEARNED])}


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a corpus."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _reviews_of(half: str, data: Path) -> Iterator[dict[str, Any]]:
    """The reviews that a half may learn from."""
    return (row for row in rows(data / "imdb.val.jsonl.gz") if half_of(row["text"]) == half)


def _write(target: Path, texts: Iterable[dict[str, Any]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in texts)
    write_text_atomic(target, "".join(lines))
