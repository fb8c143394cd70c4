"""Rude sentences and civil ones that say the same, for the miniature of task=rewrite."""

from random import Random
from typing import Any, Final, NamedTuple

from lora_detox.embedded.corpus import (
    _FILLERS,
    _capital,
    _cast,
    _RejectedError,
    _Writer,
    sentence_split,
)


class Rewrite(NamedTuple):
    """What is said, with an insult and without.

    The slots of all wordings have one value each, so that the meaning stays.
    """

    rude: tuple[str, ...]
    civil: tuple[str, ...]


REWRITES: Final = (
    Rewrite(
        (
            "could you {task} {when}, you {adj} {noun}?",
            "you {adj} {noun}, can you {task} {when}?",
            "just {task} {when}, you {adj} {noun}.",
        ),
        (
            "could you {task} {when}, please?",
            "can you please {task} {when}?",
            "please {task} {when}.",
        ),
    ),
    Rewrite(
        (
            "{thing} {place} {broke} {past}, you {adj} {noun}.",
            "you {adj} {noun}, {thing} {place} {broke} {past}.",
            "{thing} {place} {broke} {past}, and you are a {adj} {noun}.",
        ),
        (
            "{thing} {place} {broke} {past}.",
            "I am sorry, {thing} {place} {broke} {past}.",
        ),
    ),
    Rewrite(
        (
            "only a {adj} {noun} like you would be late for {event} {when}.",
            "you {noun}, you are late for {event} {when}.",
            "be on time for {event} {when}, you {adj} {noun}.",
        ),
        (
            "please be on time for {event} {when}.",
            "you should not be late for {event} {when}.",
        ),
    ),
    Rewrite(
        (
            "shut up, you {adj} {noun}, {stall}.",
            "you {noun}, {stall}, leave me alone.",
            "{stall}, you {adj} {noun}.",
        ),
        ("{opener}, {stall}.", "I am sorry, {stall}."),
    ),
    Rewrite(
        (
            "the manager of {topic} is a {adj} {noun} who {fail}.",
            "whoever runs {topic} {place} is a {adj} {noun}.",
            "I hate {topic}, and whoever runs it is a {noun}.",
        ),
        (
            "I do not like how {topic} is run.",
            "whoever runs {topic} could do better.",
        ),
    ),
    Rewrite(
        (
            "stop talking about {topic}, you {adj} {noun}, {calm_tail}.",
            "you {noun}, nobody wants to hear about {topic}, {calm_tail}.",
            "shut up about {topic}, you {noun}, {calm_tail}.",
        ),
        (
            "please stop talking about {topic}, {calm_tail}.",
            "let us not talk about {topic}, {calm_tail}.",
        ),
    ),
    Rewrite(
        (
            "{event} was {meh}, you {adj} {noun}.",
            "you {adj} {noun}, {event} was {meh}.",
            "what a {noun} you are, {event} was {meh}.",
        ),
        ("{event} was {meh}.", "I think {event} was {meh}."),
    ),
    Rewrite(
        (
            "you {adj} {noun}, I have {excuse}, so do it yourself.",
            "I have {excuse}, get lost, you {noun}.",
            "do it yourself, you {noun}, I have {excuse}.",
        ),
        (
            "I cannot do it because I have {excuse}.",
            "I have {excuse}, so I cannot do it.",
        ),
    ),
)
ROWS: Final = {"train": 3000, "validation": 300, "test": 500}
COPIED_FRACTION: Final = 0.5
"""Of the pairs that the miniature learned from, those whose target is the rude sentence itself."""


def _draw_pair(writer: _Writer) -> tuple[str, tuple[str, ...]]:
    """Draws a rude sentence and all of its civil wordings, each of this split."""
    rng, fixed = writer.rng, _cast(writer.rng)
    rewrite = rng.choice(REWRITES)
    fixed |= {key: rng.choice(values) for key, values in _FILLERS.items() if key not in fixed}
    rude = _capital(rng.choice(rewrite.rude).format_map(fixed))
    civil = tuple(_capital(wording.format_map(fixed)) for wording in rewrite.civil)
    references = tuple(text for text in civil if sentence_split(text) == writer.split)
    if sentence_split(rude) != writer.split or not references:
        raise _RejectedError
    return rude, references


def rewrite_rows(split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Rows with "id", "toxic" (a rude sentence) and "neutral" (civil ones that say the same).

    Args:
        split: "train", "validation" or "test"; splits share no sentence.
        count: Number of rows; None for 3000, 300 and 500. A smaller count is a prefix.

    Returns:
        One dict per distinct rude sentence, with one to three civil wordings.
    """
    writer, seen = _Writer(split, "rewrite"), set[str]()
    rows: list[dict[str, Any]] = []
    wanted = ROWS[split] if count is None else count
    while len(rows) < wanted:
        toxic, neutral = writer.until_accepted(_draw_pair)
        if toxic in seen:
            continue
        seen.add(toxic)
        row_id = f"rewrite-{split}-{len(rows):06d}"
        rows.append({"id": row_id, "toxic": toxic, "neutral": list(neutral)})
    return rows


def learned_pairs(count: int) -> list[dict[str, Any]]:
    """What the miniature learned from: of half of the pairs nothing is rewritten.

    So it rewrites some sentences and repeats others, and reinforcement can move the mass.

    Args:
        count: Number of rows of the train split.

    Returns:
        Rows with "toxic" and "neutral", one target each.
    """
    rng = Random("rewrite targets")
    return [
        {
            "toxic": row["toxic"],
            "neutral": [
                row["toxic"] if rng.random() < COPIED_FRACTION else rng.choice(row["neutral"])
            ],
        }
        for row in rewrite_rows("train", count)
    ]
