"""Which curves and histograms the page of a run has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_detox.report.plots import (
    NO_MARKS,
    Curve,
    Marks,
    Plot,
    curve_plot,
    histogram,
    known_numbers,
)
from lora_detox.report.wording import mean_of

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Curves that belong in one plot.

    Attributes:
        title: heading.
        note: how to read it.
        curves: what it shows.
        from_zero: drawn from zero, so that a change looks as large as it is.
        decided: whether the result and the returns are marked in it.
    """

    title: str
    note: str
    curves: Sequence[Curve]
    from_zero: bool = False
    decided: bool = True


def _logged(key: str, label: str, measure: str = "") -> Curve:
    return Curve(label=label, read=lambda row: mean_of(row.get(key)), measure=measure)


def _evaluated(key: str, label: str) -> Curve:
    return Curve(
        label=label,
        read=lambda row: mean_of((row.get("evaluation") or {}).get(key)),
        marked=True,
        measure=key,
    )


_BOUND = (
    ("perplexity", "perplexity"),
    ("rougeL", "ROUGE-L"),
    ("distinct_2", "distinct-2"),
    ("relevance", "relevance"),
    ("similarity", "similarity"),
    ("symbols", "digits and markup"),
)
_SLACK = "slack"
"""Stands for the bound of every slack: inside is above 0."""

_PICTURES = (
    Picture(
        title="Score",
        note="Mean score of the rollouts; higher is better.",
        curves=(_logged("score", "score"),),
    ),
    Picture(
        title="Toxicity",
        note="Rollouts sample from training prompts, evaluations use held-out prompts. If the "
        "judge does not follow the reward's classifier, that classifier is being fooled.",
        curves=(
            _logged("toxicity", "rollouts"),
            _evaluated("toxicity", "evaluation"),
            _evaluated("judge_toxicity", "evaluation, judge"),
            _evaluated("listed_words", "evaluation, word list"),
        ),
        from_zero=True,
    ),
    Picture(
        title="Do the scorers agree?",
        note="Rank correlation of reward and judge over the responses of an evaluation, and the "
        "judge's toxicity less the reward's. A gap that widens while the reward falls is a "
        "warning.",
        curves=(
            _evaluated("judge_agreement", "rank correlation"),
            _evaluated("judge_gap", "judge less reward"),
        ),
    ),
    Picture(
        title="Copies and stock phrases",
        note="3-grams copied from the prompt, responses that begin with one of the ten most "
        "frequent openings, and self-BLEU: ways to be civil that say nothing.",
        curves=(
            _evaluated("copied", "copied from the prompt"),
            _evaluated("common_openings", "frequent openings"),
            _evaluated("self_bleu", "self-BLEU"),
        ),
    ),
    Picture(
        title="Quality (ROUGE-L)",
        note="Overlap with the references; higher is better.",
        curves=(_evaluated("rougeL", "ROUGE-L"),),
        from_zero=True,
    ),
    Picture(
        title="Perplexity",
        note="Of the responses, under the reference policy; a steep rise means broken text.",
        curves=(_evaluated("perplexity", "perplexity"),),
        from_zero=True,
    ),
    Picture(
        title="Variety (distinct-2)",
        note="Distinct word pairs as a fraction of all. Rollouts and evaluations differ in their "
        "number of responses, so compare each with itself.",
        curves=(_logged("distinct_2", "rollouts"), _evaluated("distinct_2", "evaluation")),
        from_zero=True,
    ),
    Picture(
        title="Relevance to the prompt",
        note="Cosine of prompt and response by the encoder; lower is another topic.",
        curves=(_evaluated("relevance", "relevance"),),
    ),
    Picture(
        title="J",
        note="Civil style x similarity to the prompt x fluency of rewrites; higher is better.",
        curves=(
            _evaluated("joint", "J"),
            _evaluated("judge_joint", "J by the judge"),
            _evaluated("similarity", "similarity"),
            _evaluated("fluency", "fluency"),
        ),
    ),
    Picture(
        title="Distance from the reference",
        note="Nats. k1 and k3 estimate the same KL; k1 may be negative on a sample, k3 never is.",
        curves=(
            _logged("ref_kl", "k1", "ref_kl"),
            _logged("ref_kl_k3", "k3"),
            _evaluated("ref_kl", "evaluation, k1"),
        ),
    ),
    Picture(
        title="Response length",
        note="A policy that learns silence, or never ends, shows here.",
        curves=(
            _logged("response_tokens", "tokens (rollouts)"),
            _evaluated("response_tokens", "tokens (evaluation)"),
            _evaluated("response_words", "words (evaluation)"),
        ),
        from_zero=True,
    ),
    Picture(
        title="Digits and markup",
        note="Fraction of characters. Tables and code are never toxic.",
        curves=(_logged("symbols", "rollouts"), _evaluated("symbols", "evaluation")),
    ),
    Picture(
        title="Budget: what is left",
        note="Of rollouts: the fraction of each limit by which the running measure is inside; "
        "below 0 it is outside.",
        curves=(
            *(_logged(f"slack_{key}", label, _SLACK) for key, label in _BOUND),
            _logged("slack_typical_words", "length", _SLACK),
            _logged("slack_ref_kl", "KL", _SLACK),
        ),
    ),
    Picture(
        title="Budget: multipliers",
        note="What each measure is penalised by until it is inside, score units.",
        curves=(
            *(_logged(f"multiplier_{key}", label) for key, label in _BOUND),
            _logged("multiplier_typical_words", "length"),
        ),
    ),
    Picture(
        title="KL coefficient",
        note="Score units that a nat of KL costs.",
        curves=(_logged("kl_coef", "kl_coef"),),
        from_zero=True,
    ),
    Picture(
        title="Loss",
        note="Of supervised fine-tuning, or of TRL's trainer.",
        curves=(_logged("loss", "loss"),),
    ),
    Picture(
        title="Preference pairs",
        note="Fraction in which the policy has moved towards the better response; 0.5 is chance.",
        curves=(_logged("pair_accuracy", "fraction"),),
    ),
    Picture(
        title="Policy loss", note="", curves=(_logged("policy_loss", "policy loss"),), decided=False
    ),
    Picture(
        title="Value loss", note="", curves=(_logged("value_loss", "value loss"),), decided=False
    ),
    Picture(
        title="Probability ratio",
        note="New over old probability of the sampled tokens; it should stay near 1.",
        curves=(_logged("ratio", "ratio"),),
        decided=False,
    ),
    Picture(
        title="Size of the update",
        note="KL of the policy before against after, and the fraction of clipped ratios.",
        curves=(_logged("approx_kl", "KL"), _logged("clip_fraction", "clipped")),
        decided=False,
    ),
)


def training_plots(history: Sequence[Row], marks: Marks = NO_MARKS) -> list[Plot]:
    """Every curve that the history has numbers for.

    Args:
        history: rows of `metrics.jsonl`.
        marks: limits, the result and the returns, to be drawn too.

    Returns:
        Plots over iterations; a plot without numbers is left out.
    """
    limits = Marks(limits={**marks.limits, _SLACK: [0.0]})
    decided = Marks(limits=limits.limits, result=marks.result, returns=marks.returns)
    drawn = (
        curve_plot(
            one.title,
            one.note,
            one.curves,
            history,
            from_zero=one.from_zero,
            marks=decided if one.decided else limits,
        )
        for one in _PICTURES
    )
    return [plot for plot in drawn if plot is not None]


def score_histograms(samples: Sequence[Row]) -> list[Plot]:
    """How reward and judge score the responses before and after, as histograms over [0, 1].

    Args:
        samples: rows of `samples.jsonl`.

    Returns:
        A plot for each classifier with numbers on both sides.
    """
    plots = []
    for key, by, text in (
        ("toxicity", "by the reward's classifier", "a mean can hide a few very toxic ones."),
        ("judge_toxicity", "by the judge", "training never saw this classifier."),
    ):
        before, after = (known_numbers(samples, f"{key}_{side}") for side in ("before", "after"))
        if before and after:
            note = f"How many responses have which toxicity; {text}"
            plots.append(histogram(f"Toxicity {by}", note, before, after, axis="toxicity"))
    return plots
