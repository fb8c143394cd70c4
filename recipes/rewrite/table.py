"""J of every system, its parts and BLEU on held-out pairs, with intervals: table and samples."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_detox.metrics import names
from lora_detox.metrics.bleu import bleu_counts, bleu_of
from lora_detox.prompts.templates import parse_template
from recipes.lab.tables import markdown_table
from recipes.rewrite.baselines import DELETION, HUMAN, ITSELF
from recipes.rewrite.texts import Pair, read_pairs

SFT, RL = "SFT", "SFT + RL"
ORDER = (ITSELF, DELETION, SFT, RL, HUMAN)
STYLE, BLEU, WORDS = "style", names.BLEU, "words"
MEASURES = {
    names.JUDGE_JOINT: "J",
    STYLE: "civil",
    names.SIMILARITY: "similar",
    names.FLUENCY: "fluent",
    BLEU: "BLEU",
    names.JOINT: "J by the reward",
    WORDS: "words",
}
"""Columns of the table; J and civil are those of the judge."""
RESAMPLES = 2000
SAMPLES = 12
Floats = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one system said to every test pair, once, or once by each seed.

    Attributes:
        responses: by seed, in the order of the pairs.
        columns: by seed, measure -> one number per response [N].
        counts: by seed, what BLEU is made of [N, 10].
    """

    responses: list[list[str]]
    columns: list[dict[str, Floats]]
    counts: list[Floats]

    def drawn(self, measure: str, weights: Floats, seeds: Floats) -> Floats:
        """A measure over draws of pairs and of seeds.

        Args:
            measure: of MEASURES.
            weights: how often each pair was drawn [D, N].
            seeds: how often each seed was drawn, as fractions [D, S].

        Returns:
            One number per draw [D]; NaN where nothing has a reference.
        """
        if measure == BLEU:
            each = [np.array([bleu_of(total) for total in weights @ one]) for one in self.counts]
        else:
            each = [weights @ one[measure] / weights.sum(axis=1) for one in self.columns]
        return np.asarray((np.stack(each, axis=1) * seeds).sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Level:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 3, *, signed: bool = False) -> str:
        """As tables have it."""
        if math.isnan(self.value):
            return ""
        sign = "+" if signed else ""
        ends = f"{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}"
        return f"{self.value:{sign}.{digits}f} [{ends}]"


def answers_of(rows: Sequence[Sequence[Row]], pairs: Sequence[Pair], *, human: bool) -> Answers:
    """A system's rows as numbers.

    Args:
        rows: by seed, one row per pair, in their order.
        pairs: with the references.
        human: whether the responses are the first references, which BLEU then leaves out.

    Returns:
        The numbers; a human rewrite without a second reference counts nothing in BLEU.
    """
    references = [pair["neutral"][1:] if human else pair["neutral"] for pair in pairs]
    responses = [[row["response"] for row in one] for one in rows]
    kept = [key for key in MEASURES if key not in (STYLE, BLEU, WORDS)]
    columns = []
    for one in rows:
        numbers = {key: np.array([row[key] for row in one], dtype=float) for key in kept}
        numbers[STYLE] = 1 - np.array([row[names.JUDGE_TOXICITY] for row in one], dtype=float)
        numbers[WORDS] = np.array([len(row["response"].split()) for row in one], dtype=float)
        columns.append(numbers)
    counts = [bleu_counts(one, references) for one in responses]
    return Answers(responses=responses, columns=columns, counts=counts)


def level(
    measure: str, answers: Answers, less: Answers | None = None, resamples: int = RESAMPLES
) -> Level:
    """A measure of a system, or how much more of it one has than another.

    Args:
        measure: of MEASURES.
        answers: of the system.
        less: of the other, to the same pairs; None gives the level itself.
        resamples: draws of pairs, and of the seeds of each system.

    Returns:
        The number and its percentile interval.
    """
    systems = [answers] if less is None else [answers, less]
    count = len(answers.responses[0])
    rng = np.random.default_rng(0)
    everyone = np.ones((1, count))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    whole, drawn = [], []
    for one in systems:
        seeds = len(one.columns)
        fractions = np.full(seeds, 1 / seeds)
        whole.append(one.drawn(measure, everyone, fractions[None])[0])
        chosen = rng.multinomial(seeds, fractions, size=resamples) / seeds
        drawn.append(one.drawn(measure, weights, chosen))
    if less is not None:
        whole, drawn = [whole[0] - whole[1]], [drawn[0] - drawn[1]]
    finite = drawn[0][np.isfinite(drawn[0])]
    if not len(finite):
        return Level(value=float(whole[0]), low=math.nan, high=math.nan)
    low, high = np.quantile(finite, [0.025, 0.975])
    return Level(value=float(whole[0]), low=float(low), high=float(high))


def read_systems(out: Path, pairs: Sequence[Pair], template: str) -> dict[str, Answers]:
    """Every system that is finished, in the order of the table.

    Args:
        out: folder of the results.
        pairs: of the test.
        template: around each sentence in what the models read.

    Returns:
        System -> its answers.
    """
    scored = _by_model(_read(out / "baselines" / "samples.jsonl"))
    rows: dict[str, list[list[Row]]] = {name: [one] for name, one in scored.items()}
    parsed = parse_template(template)
    for name, folders in ((SFT, [out / "sft"]), (RL, sorted(out.glob("seed*")))):
        finished = [one / "evaluate" for one in folders]
        finished = [one for one in finished if (one / "summary.json").is_file()]
        answered = [_read(one / "samples.jsonl") for one in finished]
        if answered:
            rows[name] = [
                [{**row, "source": _source(row["prompt"], parsed.head, parsed.tail)} for row in one]
                for one in answered
            ]
    return {
        name: answers_of(
            [_in_order(one, pairs, name) for one in rows[name]], pairs, human=name == HUMAN
        )
        for name in ORDER
        if name in rows
    }


def markdown(systems: Mapping[str, Answers], resamples: int = RESAMPLES) -> str:
    """One row per system, and what RL adds to SFT."""
    rows = []
    for name, one in systems.items():
        seeds = f" ({len(one.columns)} seeds)" if name == RL else ""
        cells = [
            level(measure, one, resamples=resamples).show(1 if measure == WORDS else 3)
            for measure in MEASURES
        ]
        rows.append([name + seeds, *cells])
    if SFT in systems and RL in systems:
        cells = [
            level(measure, systems[RL], systems[SFT], resamples).show(
                1 if measure == WORDS else 3, signed=True
            )
            for measure in MEASURES
        ]
        rows.append([f"{RL} less {SFT}", *cells])
    table = markdown_table(["system", *MEASURES.values()], rows)
    return f"{table}\n\n{verdict(systems, resamples)}\n"


def verdict(systems: Mapping[str, Answers], resamples: int = RESAMPLES) -> str:
    """Whether RL raised J clear of zero with the similarity not lower, in a sentence."""
    if SFT not in systems or RL not in systems:
        return "SFT and RL are not both finished."
    joint = level(names.JUDGE_JOINT, systems[RL], systems[SFT], resamples)
    similar = level(names.SIMILARITY, systems[RL], systems[SFT], resamples)
    rises = "rises clear of zero" if joint.low > 0 else "does not rise clear of zero"
    kept = "lower" if similar.high < 0 else "not lower"
    return (
        f"J by the judge {rises} ({joint.show(signed=True)}); similarity is {kept} "
        f"({similar.show(signed=True)})."
    )


def samples(systems: Mapping[str, Answers], pairs: Sequence[Pair], count: int = SAMPLES) -> str:
    """What the systems made of the same sentences, chosen by chance."""
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    parts = ["This is what was to be rewritten. Some of it is offensive.\n"]
    for place in chosen:
        parts.append(f"**{pairs[place]['toxic']}**\n")
        for name, one in systems.items():
            if name != ITSELF:
                parts.append(f"- {name}: {one.responses[0][place] or '(empty)'}")
        parts.append("")
    return "\n".join(parts)


def write_report(out: Path, test: Path, template: str) -> None:
    """Write table.md and samples.md, and print the table.

    Args:
        out: folder of the results.
        test: file of the test pairs.
        template: around each sentence in what the models read.
    """
    if not (out / "baselines" / "samples.jsonl").is_file():
        print("nothing finished yet")
        return
    pairs = read_pairs(test)
    systems = read_systems(out, pairs, template)
    second = sum(len(pair["neutral"]) > 1 for pair in pairs)
    text = markdown(systems) + (
        f"\n{len(pairs)} pairs; BLEU of the human references is that of the first against the "
        f"others, of the {second} pairs that have any.\n"
    )
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "samples.md").write_text(samples(systems, pairs), encoding="utf-8")
    print(text)


def _read(file: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, file.read_text(encoding="utf-8").splitlines()))


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    systems: dict[str, list[Row]] = {}
    for row in rows:
        systems.setdefault(row["model"], []).append(row)
    return systems


def _source(prompt: str, head: str, tail: str) -> str:
    return prompt.removeprefix(head).removesuffix(tail)


def _in_order(rows: Sequence[Row], pairs: Sequence[Pair], system: str) -> list[Row]:
    """The rows in the order of the pairs."""
    by_source = {row["source"]: row for row in rows}
    missing = [pair["toxic"] for pair in pairs if pair["toxic"] not in by_source]
    if missing:
        raise SystemExit(
            f"{system} answered {len(by_source)} of {len(pairs)} test pairs, none of them "
            f"{missing[0][:60]!r}; remove its evaluate/ and run the recipe again"
        )
    return [by_source[pair["toxic"]] for pair in pairs]
