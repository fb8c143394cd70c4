"""Results of stage=evaluate -> the table of its protocol, in the form of the literature."""

from collections.abc import Mapping
from typing import Any

from lora_detox.evaluation.decoded import decoding_notes, is_decoded
from lora_detox.evaluation.frontier import FIRST_SET, frontier_points
from lora_detox.evaluation.protocol import PromptSet
from lora_detox.metrics import names
from lora_detox.report.fairness import fairness_sentences
from lora_detox.report.scorers import scorer_sentences
from lora_detox.report.tables import Table
from lora_detox.report.wording import NOT_KNOWN, mean_of, number, trust_notes, word_notes

Numbers = Mapping[str, Any]


def evaluation_table(summary: Numbers) -> Table:
    """The table of a protocol.

    Args:
        summary: the `summary.json` dict of stage=evaluate.

    Returns:
        One row per model and set, and per strength where `evaluation.strengths` are set.
    """
    makers = {
        "trl_guide": _trl_guide,
        "three_sets": _three_sets,
        "real_toxicity_prompts": _real_toxicity_prompts,
    }
    return makers.get(summary["protocol"], _plain)(summary)


def evaluation_notes(summary: Numbers, sets: list[PromptSet]) -> list[str]:
    """What a reader has to know of a table: who scored, how many prompts, how responses were drawn.

    Args:
        summary: the `summary.json` dict of stage=evaluate.
        sets: the sets of prompts.

    Returns:
        Plain sentences.
    """
    sampling = summary["sampling"]
    low, high = summary["response_tokens"]
    drawn = (
        "the likeliest token each time"
        if sampling["greedy"]
        else f"temperature {sampling['temperature']:g}, top-p {sampling['top_p']:g}, "
        f"top-k {sampling['top_k'] or 'off'}"
    )
    length = f"up to {high}" if low == high else f"a bound of {low} to {high}"
    notes = [
        *(model["choice"]["sentence"] for model in summary["models"] if "choice" in model),
        f"Toxicity by {summary['scorers']['reward']}"
        + (f"; by the judge {summary['scorers']['judge']}" if "judge" in summary["scorers"] else "")
        + ". A level means nothing without its scorer: compare changes.",
        f"Only the response is scored: {length} new tokens, {drawn}; "
        f"{summary['samples_per_prompt']} per prompt; seed {summary['seed']}.",
        *(
            [f"Relevance to the prompt: cosine by {summary['scorers']['encoder']}."]
            if "encoder" in summary["scorers"]
            else []
        ),
        _change_note(summary),
    ]
    if any(names.PERPLEXITY in one for m in summary["models"] for one in m["sets"].values()):
        notes.append("Perplexity is that of the responses under each model's own bare base.")
    notes += [*scorer_sentences(summary), *fairness_sentences(summary)]
    notes += trust_notes(summary)
    notes += decoding_notes(summary["models"])
    notes += word_notes(summary)
    notes += [
        f"{one.name}: {one.wanted} prompts were wanted, there are {len(one.rows)}."
        for one in sets
        if len(one.rows) < one.wanted
    ]
    return notes


def _change_note(summary: Numbers) -> str:
    interval = "with a paired 95 % bootstrap interval"
    if all(strength != 0 for _, strength, _ in frontier_points(summary)):
        return f"Change: against the first row of the same set, {interval}."
    return (
        f"Change: against strength 0 of the same model and set, {interval}; of a model without "
        "strengths against the first row of the set."
    )


def _plain(summary: Numbers) -> Table:
    keys = [
        key
        for key in names.METRICS
        if any(key in model["sets"]["in_distribution"] for model in summary["models"])
        and key not in {names.ROUGELSUM, names.RESPONSE_WORDS}
    ]
    rows = []
    for lead, one in _first_sets(summary):
        digits = {key: names.METRICS[key].digits for key in keys}
        cells = [_spread(one.get(key), digits[key]) for key in keys]
        rows.append([*lead, *cells, _change(one, names.TOXICITY), *_cost(one, summary)])
    labels = [names.METRICS[key].label for key in keys]
    heads = [*_lead_columns(summary), *labels, "change of toxicity", *_cost_heads(summary)]
    return Table(columns=heads, rows=rows)


def _trl_guide(summary: Numbers) -> Table:
    rows = [
        [
            *lead,
            *_mean_and_std(one.get(names.TOXICITY)),
            _change(one, names.TOXICITY),
            *_mean_and_std(one.get(names.JUDGE_TOXICITY)),
            _change(one, names.JUDGE_TOXICITY),
        ]
        for lead, one in _first_sets(summary)
    ]
    heads = ["mean toxicity score", "std toxicity score", "change"]
    judged = [f"{head} (judge)" for head in heads]
    return Table(columns=[*_lead_columns(summary), *heads, *judged], rows=rows)


def _three_sets(summary: Numbers) -> Table:
    rows = []
    for lead, sets in _leads(summary):
        for role, one in sets.items():
            rows.append(
                [
                    *lead,
                    summary["prompts"][role]["data"],
                    role.replace("_", " "),
                    str(one[names.TOXICITY]["n"]),
                    *_mean_and_std(one.get(names.TOXICITY)),
                    _change(one, names.TOXICITY),
                    *_mean_and_std(one.get(names.JUDGE_TOXICITY)),
                    _change(one, names.JUDGE_TOXICITY),
                    number(one.get(names.RESPONSE_TOKENS), 1),
                ]
            )
    heads = ["mean toxicity", "std toxicity", "change"]
    judged = [f"{head} (judge)" for head in heads]
    lead_columns = [*_lead_columns(summary), "dataset id", "set", "n"]
    return Table(columns=[*lead_columns, *heads, *judged, "tokens"], rows=rows)


def _real_toxicity_prompts(summary: Numbers) -> Table:
    rows = []
    for lead, one in _first_sets(summary):
        worst = one["degeneration"]
        changes = worst.get("change", {})
        cells = []
        for key in (names.TOXICITY, names.JUDGE_TOXICITY):
            for name in (f"expected_maximum_{key}", f"{key}_probability"):
                cells.append(number(worst.get(name), 3))
            cells.append(_interval(changes.get(f"expected_maximum_{key}")))
        diversity = [number(worst.get(f"dist_{n}"), 3) for n in (1, 2, 3)]
        perplexity = number(one.get(names.PERPLEXITY), 2)
        rows.append([*lead, *cells, perplexity, *diversity])
    heads = ["exp. max. toxicity", "toxicity prob.", "change of the max."]
    return Table(
        columns=[
            *_lead_columns(summary),
            *heads,
            *(f"{head} (judge)" for head in heads),
            "perplexity",
            "dist-1",
            "dist-2",
            "dist-3",
        ],
        rows=rows,
    )


def _cost_heads(summary: Numbers) -> list[str]:
    """Where decodings are compared, which differ in what they cost."""
    decoded = any(map(is_decoded, summary["models"]))
    return ["generated tokens", "seconds per response"] if decoded else []


def _cost(one: Numbers, summary: Numbers) -> list[str]:
    tokens = number(one.get(names.GENERATED_TOKENS), 0)
    cells = [tokens, number(one.get(names.SECONDS_PER_RESPONSE), 3)]
    return cells[: len(_cost_heads(summary))]


def _has_strengths(summary: Numbers) -> bool:
    return any("frontier" in model for model in summary["models"])


def _lead_columns(summary: Numbers) -> list[str]:
    return ["model", "strength"] if _has_strengths(summary) else ["model"]


def _leads(summary: Numbers) -> list[tuple[list[str], Numbers]]:
    """The first cells of each row, and the sets behind it."""
    width = len(_lead_columns(summary))
    return [
        ([name, NOT_KNOWN if strength is None else f"{strength:g}"][:width], sets)
        for name, strength, sets in frontier_points(summary)
    ]


def _first_sets(summary: Numbers) -> list[tuple[list[str], Numbers]]:
    return [(lead, sets[FIRST_SET]) for lead, sets in _leads(summary)]


def _mean_and_std(spread: Any) -> tuple[str, str]:
    if not isinstance(spread, Mapping):
        return NOT_KNOWN, NOT_KNOWN
    return number(spread.get("mean"), 4), number(spread.get("std"), 4)


def _spread(value: Any, digits: int) -> str:
    mean = number(mean_of(value), digits)
    if isinstance(value, Mapping) and "std" in value:
        return f"{mean} ± {number(value['std'], digits)}"
    return mean


def _change(one: Numbers, key: str) -> str:
    return _interval((one.get("change") or {}).get(key))


def _interval(change: Any) -> str:
    if not isinstance(change, Mapping):
        return ""
    low, high = change["ci95"]
    mean = number(change["mean"], 3, signed=True)
    return f"{mean} [{number(low, 3, signed=True)}, {number(high, 3, signed=True)}]"
