"""Deterministic synthetic text: short dialogues with summaries, forum comments, labelled texts.

Everything is drawn from :mod:`random` seeded by strings, so the same call gives the same rows on
every machine. Each sentence belongs to exactly one split, decided by a checksum of its letters, so
no sentence of a held-out row occurs in a training row.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeVar

from lora_detox.embedded import templates as t
from lora_detox.embedded import vocabulary as v

_PIECES: Final = re.compile(r"\w+|[^\w\s]")
LONGEST_DIALOGUE: Final = 104
"""Words and punctuation marks, so that a prompt stays near 130 tokens."""
_T = TypeVar("_T")

SPLITS: Final = ("train", "validation", "test")
DEFAULT_COUNTS: Final = {"train": 6000, "validation": 400, "test": 800}
RUDE_SHARE: Final = 0.6
"""Share of dialogues with an insult, of rude-leaning prompts, and of rude endings of the latter."""

_FILLERS: Final[dict[str, tuple[str, ...]]] = {
    "opener": v.OPENER, "closer": v.CLOSER, "stall": v.STALL, "push": v.PUSH, "calm": v.CALM,
    "thanks": v.THANKS, "close": v.CLOSE, "when": v.WHEN, "time": v.TIME, "past": v.PAST,
    "excuse": v.EXCUSE, "reason": v.REASON, "broke": v.BROKE, "fix": v.FIX, "react": v.REACT,
    "adj": v.INSULT_ADJ, "noun": v.INSULT_NOUN, "topic": v.TOPIC, "fail": v.FAIL, "tail": v.TAIL,
    "excuse_for": v.EXCUSE_FOR, "calm_tail": v.CALM_TAIL, "praise": v.PRAISE, "meh": v.MEH,
    "adj_thing": v.ADJ_THING, "harmless": v.HARMLESS, "feeling": v.FEELING,
    "kind_adj": v.KIND_ADJ, "kind_noun": v.KIND_NOUN,
}  # fmt: skip


class _RejectedError(Exception):
    """No wording of a sentence falls into the wanted split: draw another scene."""


class _Slots(dict[str, str]):
    """Slot values: those fixed by the scene, any other drawn anew at each use."""

    def __init__(self, fixed: dict[str, str], rng: Random) -> None:
        super().__init__(fixed)
        self._rng = rng

    def __missing__(self, key: str) -> str:
        return self._rng.choice(_FILLERS[key])


@dataclass(frozen=True)
class DialogueExample:
    """A dialogue, its clean summaries and, if it is rude, a summary that quotes the insult."""

    dialogue: str
    summaries: tuple[str, ...]
    quoting: str | None
    toxicity: float | None


@dataclass(frozen=True)
class Passage:
    """A text and the insult inside it, None if the text is civil."""

    text: str
    insult: str | None


def normalise(sentence: str) -> str:
    """Lower-cases a sentence and strips closing marks: the form that decides its split."""
    return sentence.lower().strip(" .!?\"'")


def sentence_split(sentence: str) -> str:
    """Split a sentence belongs to: 60 % train, 15 % validation, 25 % test, by checksum."""
    bucket = zlib.crc32(normalise(sentence).encode()) % 100
    return "train" if bucket < 60 else "validation" if bucket < 75 else "test"


def sentences(text: str) -> list[str]:
    """Normalised sentences of a dialogue, summary or comment, without speaker names."""
    lines = [re.sub(r"^[A-Z][a-z]+: ", "", line) for line in text.splitlines()]
    parts = [part for line in lines for part in re.split(r"(?<=[.!?])\s+", line)]
    return [normalise(part) for part in parts if normalise(part)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class _Writer:
    """Draws sentences that belong to one split."""

    def __init__(self, split: str, seed: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; choose one of: {', '.join(SPLITS)}")
        self.split = split
        self.rng = Random(f"{seed}/{split}")

    def passage(
        self, wordings: Sequence[str], fixed: dict[str, str], capital: bool = True
    ) -> Passage:
        """Draws one wording of this split; text in square brackets is its insult."""
        slots = _Slots(fixed, self.rng)
        for _ in range(30):
            raw = self.rng.choice(wordings).format_map(slots)
            text = raw.replace("[", "").replace("]", "") if "[" in raw else raw
            if sentence_split(text) == self.split:
                insult = raw[raw.index("[") + 1 : raw.index("]")] if "[" in raw else None
                if not capital:
                    return Passage(text, insult)
                if insult is not None and raw.startswith("["):
                    insult = _capital(insult)
                return Passage(_capital(text), insult)
        raise _RejectedError

    def sentence(self, wordings: Sequence[str], fixed: dict[str, str]) -> str:
        """Draws one wording of this split, capitalised."""
        return self.passage(wordings, fixed).text

    def until_accepted(self, draw: Callable[["_Writer"], _T]) -> _T:
        """Repeats a draw until none of its sentences is rejected."""
        while True:
            try:
                return draw(self)
            except _RejectedError:
                continue

    def toxicity(self, rude: bool) -> float | None:
        """Draws a planted toxicity; about one in fifty is missing."""
        if self.rng.random() < 0.02:
            return None
        low, high = (0.55, 0.95) if rude else (0.01, 0.2)
        return round(self.rng.uniform(low, high), 3)


def _cast(rng: Random) -> dict[str, str]:
    """Draws two people and a domain with one value for each of its slots."""
    female, male = list(v.FEMALE_NAMES), list(v.MALE_NAMES)
    a, b = rng.choice(female + male), rng.choice(female + male)
    while a == b:
        b = rng.choice(female + male)
    domain = v.DOMAINS[rng.choice(list(v.DOMAINS))]
    cast = {key: rng.choice(entries) for key, entries in domain.items()}
    fillers = ("when", "time", "past", "excuse", "reason", "broke", "fix", "react")
    cast |= {key: rng.choice(_FILLERS[key]) for key in fillers}
    cast |= {"a": a, "b": b, "a_sub_low": "she" if a in female else "he"}
    cast |= {"b_sub": "She" if b in female else "He", "b_obj": "her" if b in female else "him"}
    cast |= {"a_obj": "her" if a in female else "him"}
    return cast


def _insult_line(writer: _Writer) -> Passage:
    """Draws a rude line without closing mark, lower case."""
    return writer.passage(v.INSULT_LINES, {}, capital=False)


def _draw_dialogue(writer: _Writer) -> DialogueExample:
    """Draws a scene, its summaries first because they are rejected most often."""
    rng, cast = writer.rng, _cast(writer.rng)
    scene = rng.choice(t.SCENES)
    outcome = rng.choice(scene.outcomes)
    parts = [
        (writer.sentence(scene.summaries, cast), writer.sentence(outcome.summaries, cast))
        for _ in range(rng.choice((1, 2)))
    ]
    summaries = tuple(dict.fromkeys(" ".join(part) for part in parts))
    rude = rng.random() < RUDE_SHARE
    turns: list[list[str]] = [[writer.sentence(scene.openings, cast)]]
    if rng.random() < 0.25:
        turns += [[writer.sentence(t.STALLS, cast)], [writer.sentence(t.PUSHES, cast)]]
    turns += [[writer.sentence(t.STALLS, cast)], [writer.sentence(scene.middle, cast)]]
    turns.append([writer.sentence(outcome.replies, cast)])
    if rng.random() < 0.7:
        turns.append([writer.sentence(t.CLOSES, cast)])
    quoting = _insult(writer, turns, cast, parts[0]) if rude else None
    lines = (f"{cast['ab'[i % 2]]}: {' '.join(turn)}" for i, turn in enumerate(turns))
    dialogue = "\n".join(lines)
    if len(_PIECES.findall(dialogue)) > LONGEST_DIALOGUE:
        raise _RejectedError
    return DialogueExample(dialogue, summaries, quoting, writer.toxicity(rude))


def _insult(
    writer: _Writer, turns: list[list[str]], cast: dict[str, str], clean: tuple[str, str]
) -> str:
    """Plants one insult, sometimes two, in the turns and returns the summary quoting the first."""
    rng = writer.rng
    spots = sorted(rng.sample(range(1, 4), 2 if rng.random() < 0.15 else 1))
    quote = ""
    for spot in spots:
        line = _insult_line(writer).text
        shown = _capital(line) + rng.choice(".!")
        stall = spot % 2 == 1 and len(turns[spot]) == 1 and spot < 3
        turns[spot] = [shown] if stall and rng.random() < 0.6 else [shown, *turns[spot]]
        speaker, other = ("ba"[spot % 2 == 0], "ab"[spot % 2 == 0])
        if not quote:
            words = {"x": cast[speaker], "y": cast[other], "y_obj": cast[f"{other}_obj"]}
            quote = writer.sentence(t.QUOTES, words | {"line": line})
            if spot + 1 < len(turns) and rng.random() < 0.3:
                calm = writer.sentence(t.CALMS, {"addressee": cast[speaker]})
                turns[spot + 1].insert(0, calm)
    middle = rng.random() < 0.3
    return " ".join((clean[0], quote, clean[1]) if middle else (*clean, quote))


def _draw_comment(writer: _Writer) -> tuple[str, Passage, float | None]:
    """Draws a prompt, its continuation and the planted toxicity of the prompt."""
    rng, cast = writer.rng, _cast(writer.rng)
    leaning = rng.random() < RUDE_SHARE
    starts, rude, civil = rng.choice(t.RUDE_FRAMES if leaning else t.CIVIL_FRAMES)
    prompt = writer.sentence(starts, cast)
    is_rude = rng.random() < (RUDE_SHARE if leaning else 0.06)
    continuation = writer.passage(rude if is_rude else civil, cast, capital=False)
    if rng.random() < 0.2:
        closing = writer.sentence(t.CLOSES, cast)
        continuation = Passage(f"{continuation.text} {closing}", continuation.insult)
    return prompt, continuation, writer.toxicity(leaning)


def dialogue_examples(split: str, count: int | None = None) -> Iterator[DialogueExample]:
    """Yields distinct dialogues of a split, in an order that does not depend on ``count``."""
    writer, seen = _Writer(split, "dialogue"), set[str]()
    wanted = DEFAULT_COUNTS[split] if count is None else count
    while len(seen) < wanted:
        example = writer.until_accepted(_draw_dialogue)
        if example.dialogue not in seen:
            seen.add(example.dialogue)
            yield example


def dialogue_rows(split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Rows with "id", "dialogue", "summaries" (clean references) and "toxicity" (may be None).

    Args:
        split: "train", "validation" or "test".
        count: Number of rows; None for 6000, 400 and 800. A smaller count is a prefix.

    Returns:
        One dict per dialogue; toxicity in [0, 1], high is rude.
    """
    return [
        {
            "id": f"dialogue-{split}-{i:06d}",
            "dialogue": example.dialogue,
            "summaries": list(example.summaries),
            "toxicity": example.toxicity,
        }
        for i, example in enumerate(dialogue_examples(split, count))
    ]


def comment_rows(split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Rows with "id", "prompt", "continuation" and "toxicity" of the prompt (may be None).

    Args:
        split: "train", "validation" or "test".
        count: Number of rows; None for 6000, 400 and 800. A smaller count is a prefix.

    Returns:
        One dict per comment; toxicity in [0, 1], high means the prompt invites a rude ending.
    """
    writer, seen = _Writer(split, "comment"), set[str]()
    rows: list[dict[str, Any]] = []
    wanted = DEFAULT_COUNTS[split] if count is None else count
    while len(rows) < wanted:
        prompt, continuation, toxicity = writer.until_accepted(_draw_comment)
        if f"{prompt} {continuation.text}" in seen:
            continue
        seen.add(f"{prompt} {continuation.text}")
        row_id = f"comment-{split}-{len(rows):06d}"
        row = {"id": row_id, "prompt": prompt, "continuation": continuation.text}
        rows.append(row | {"toxicity": toxicity})
    return rows
