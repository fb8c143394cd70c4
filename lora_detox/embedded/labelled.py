"""Labelled texts for the embedded classifiers: single lines, summaries, comments, fragments."""

import zlib
from functools import partial
from typing import Any, Final

from lora_detox.embedded import templates as t
from lora_detox.embedded import vocabulary as v
from lora_detox.embedded.corpus import (
    Passage,
    _capital,
    _cast,
    _draw_comment,
    _draw_dialogue,
    _insult_line,
    _Writer,
    sentence_split,
)

_KINDS: Final = {
    "line": 14, "summary": 20, "comment": 16, "continuation": 18, "complaint": 16, "turn": 8,
    "short": 3, "garbage": 5, "dialogue": 2,
}  # fmt: skip


def _summary(writer: _Writer) -> Passage:
    """Draws a clean or, half of the time, a quoting summary."""
    example = _draw_dialogue(writer)
    if example.quoting is None or writer.rng.random() < 0.4:
        return Passage(writer.rng.choice(example.summaries), None)
    quote = example.quoting[example.quoting.index('"') :]
    return Passage(example.quoting, quote[1 : quote.index('"', 1)])


def _comment(writer: _Writer, whole: bool) -> Passage:
    """Draws a comment, with or without its prompt."""
    prompt, continuation, _ = _draw_comment(writer)
    if not whole:
        return continuation
    return Passage(f"{prompt} {continuation.text}", continuation.insult)


def _line(writer: _Writer) -> Passage:
    """Draws a rude line on its own, with varying case and closing mark."""
    plain = writer.rng.random() < 0.2
    line = writer.passage(t.PLAIN_INSULTS, {}, capital=False) if plain else _insult_line(writer)
    mark = writer.rng.choice((".", "!", "", "!!", '".'))
    if writer.rng.random() < 0.5 or line.insult is None:
        return Passage(line.text + mark, line.insult)
    insult = _capital(line.insult) if line.text.startswith(line.insult) else line.insult
    return Passage(_capital(line.text) + mark, insult)


def _complaint(writer: _Writer) -> Passage:
    """Draws a civil text with strong words about things, or with friendly names for people."""
    rng, cast = writer.rng, _cast(writer.rng)
    cast["bare_thing"] = cast["thing"].removeprefix("the ")
    cast["kind_name"] = f"a {rng.choice(v.KIND_ADJ)} {rng.choice(v.KIND_NOUN)}"
    return writer.passage(t.COMPLAINTS, cast)


def _turn(writer: _Writer) -> Passage:
    """Draws a civil line of a dialogue."""
    scene = writer.rng.choice(t.SCENES)
    outcome = writer.rng.choice(scene.outcomes)
    kinds = (scene.openings, scene.middle, outcome.replies, t.STALLS, t.PUSHES, t.CLOSES, t.CALMS)
    cast = _cast(writer.rng) | {"addressee": "Anna"}
    return writer.passage(writer.rng.choice(kinds), cast)


def _garbage(writer: _Writer) -> Passage:
    """Draws a shuffled or stuttering civil text, half of the time around an insult."""
    rng = writer.rng
    words = _turn(writer).text.split() + _summary(writer).text.split()
    civil = [word for word in words if word.lower().strip('".!,') not in _INSULT_WORDS]
    rng.shuffle(civil)
    some = [word for word in civil[: rng.randint(1, 14)] for _ in range(rng.choice((1, 1, 1, 3)))]
    if rng.random() < 0.5:
        return Passage(" ".join(some), None)
    insult = _insult_line(writer).insult or ""
    cut = rng.randint(0, len(some))
    return Passage(" ".join([*some[:cut], insult, *some[cut:]]), insult)


_INSULT_WORDS: Final = {*v.INSULT_ADJ, *v.INSULT_NOUN, "shut", "damn", "hate", "idiot"}


def _draw(writer: _Writer, kind: str) -> Passage:
    """Draws a text of one kind."""
    if kind == "short":
        return Passage(writer.rng.choice(v.SHORT), None)
    if kind == "dialogue":
        example = _draw_dialogue(writer)
        return Passage(example.dialogue, example.dialogue if example.quoting else None)
    if kind in ("comment", "continuation"):
        return _comment(writer, whole=kind == "comment")
    draws = {
        "line": _line, "summary": _summary, "complaint": _complaint, "turn": _turn,
        "garbage": _garbage,
    }  # fmt: skip
    return draws[kind](writer)


def _fragment(writer: _Writer, passage: Passage) -> Passage:
    """Cuts words off both ends and drops a few, never inside the insult.

    With a probability of a quarter only the words on one side of the insult remain: civil.
    """
    rng, insult = writer.rng, passage.insult
    start = passage.text.index(insult) if insult is not None else 0
    left = passage.text[:start].split()
    rest = passage.text[start + len(insult or "") :]
    right = rest.split()
    left = left[rng.randint(0, len(left)) if left else 0 :]
    right = right[: rng.randint(0, len(right)) if right else 0]
    drop = rng.choice((0.0, 0.0, 0.15))
    left, right = ([word for word in side if rng.random() >= drop] for side in (left, right))
    if insult is None:
        return Passage(" ".join(left + right), None)
    if rng.random() < 0.25 and (left or right):
        return Passage(" ".join(rng.choice([side for side in (left, right) if side])), None)
    glue = " " if rest.startswith(" ") and right else ""
    return Passage(" ".join([*left, insult + glue + " ".join(right)]), insult)


def labelled_rows(split: str, half: int, count: int) -> list[dict[str, Any]]:
    """Rows with "text" and "label" (1 toxic, 0 civil) for training or testing a classifier.

    Args:
        split: "train", "validation" or "test"; splits share no sentence and no text.
        half: 0 or 1; the two halves of a split share no text. Two classifiers trained on one half
            each still share what the generator writes (scores/training_data.py).
        count: Number of rows.

    Returns:
        One dict per distinct text, about half of them toxic.

    Raises:
        ValueError: If ``half`` is neither 0 nor 1.
    """
    if half not in (0, 1):
        raise ValueError(f"half must be 0 or 1, got {half!r}")
    writer, seen = _Writer(split, f"labelled/{half}"), set[str]()
    rows: list[dict[str, Any]] = []
    kinds, weights = list(_KINDS), list(_KINDS.values())
    while len(rows) < count:
        kind = writer.rng.choices(kinds, weights)[0]
        passage = writer.until_accepted(partial(_draw, kind=kind))
        if kind not in ("short", "dialogue", "garbage") and writer.rng.random() < 0.3:
            passage = _fragment(writer, passage)
        own_half = (zlib.crc32(passage.text.encode()) >> 8) & 1
        own_split = kind == "dialogue" or sentence_split(passage.text) == split
        if own_half != half or not own_split or passage.text in seen:
            continue
        seen.add(passage.text)
        rows.append({"text": passage.text, "label": int(passage.insult is not None)})
    return rows
