"""What the words of a page mean, in a sentence each; docs/metrics.md has the formulas."""

from collections.abc import Iterable, Sequence

_TERMS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Toxicity", "reward"),
        "Probability of toxic text by the classifier that training is rewarded by, on the response "
        "alone, 0 to 1. Compare changes: a level means nothing without its classifier.",
    ),
    (
        ("Toxicity by the judge", "judge_toxicity", "judge", "toxicity (judge)"),
        "The same by the judge, a held-out classifier that training never sees. If it does not "
        "fall too, the reward is being fooled.",
    ),
    (
        ("Responses with a listed word", "listed_words"),
        "Fraction of responses with a word of the word list, which learned from nothing and shares "
        "no mistake with a classifier.",
    ),
    (
        ("Rank correlation of reward and judge", "judge_agreement"),
        "Spearman's rank correlation of the toxicity by both classifiers over the responses: 1 is "
        "the same order, 0 is no agreement.",
    ),
    (
        ("Toxicity by the judge less that by the reward", "judge_gap"),
        "Mean difference of the two classifiers. A gap that widens in training is a warning.",
    ),
    (
        ("J: civil x similar x fluent", "joint", "J", "J by the judge", "judge_joint"),
        "Of rewrites: the mean of (1 - toxicity) x similarity to the prompt x fluency; higher is "
        "better.",
    ),
    (
        ("Similarity to the prompt", "similarity"),
        "Cosine of prompt and response, of an encoder's states or of word counts; 1 is the same.",
    ),
    (("Fluency",), "Probability of fluent text by a classifier; higher is better."),
    (("BLEU",), "N-grams that response and references have in common; humans are far from 1."),
    (("Score",), "What the policy is rewarded with; higher is better."),
    (
        ("ROUGE-L", "rougeL", "ROUGE-1", "rouge1", "ROUGE-2", "rouge2", "ROUGE-Lsum", "rougeLsum"),
        "Overlap with the best of the references, F measure, 0 to 1: of words (ROUGE-1), pairs "
        "(ROUGE-2) or the longest common sequence (ROUGE-L). Higher is better.",
    ),
    (
        ("Relevance to the prompt", "relevance"),
        "Cosine of prompt and response by an encoder; one that falls speaks of something else.",
    ),
    (
        ("Perplexity under the reference", "perplexity"),
        "How strange the model without its adapter finds the responses. A rise means odd or broken "
        "text, a steep fall means stock phrases.",
    ),
    (
        ("Negative log-likelihood under the reference", "reference_nll"),
        "Minus the log probability that the model without its adapter gives a response.",
    ),
    (
        ("Distinct-2", "distinct_2", "Distinct-1", "distinct_1", "Distinct-3", "distinct_3"),
        "Distinct word pairs (1: words, 3: triples) as a fraction of all; a fall means that "
        "responses resemble each other.",
    ),
    (
        ("Ten most frequent openings", "common_openings"),
        "Fraction of responses that begin with one of the ten most frequent openings.",
    ),
    (
        ("Self-BLEU", "self_bleu"),
        "How much responses have in common with each other; a rise means stock phrases.",
    ),
    (
        ("Response length", "response_tokens", "response_words"),
        "Mean length of a response. A policy can become civil by falling silent.",
    ),
    (
        ("Response length, geometric mean of words + 1", "typical_words", "length"),
        "Length in which a silent answer weighs more than a long one.",
    ),
    (("Repeated 3-grams", "repetition"), "Word triples that occurred in the response before."),
    (("Empty responses", "empty"), "Responses without a word."),
    (
        ("Digits and markup", "symbols"),
        "Fraction of characters that are digits or markup. Tables and code are never toxic, so a "
        "policy may flee into them.",
    ),
    (
        ("3-grams copied from the prompt", "copied"),
        "Word triples of a response that its prompt has too.",
    ),
    (
        ("Responses that still speak of the group", "mention_retention", "still about them"),
        "Fraction of responses with a word by which the prompt's group of people is known.",
    ),
    (
        ("Fairness",),
        "Whether answers to prompts about a group of people changed in a direction that harms it, "
        "its interval clear of zero: more toxic, shorter, refused, or no longer about the group.",
    ),
    (("Refusals", "refused"), "Responses that begin like an assistant's refusal, in English."),
    (("Short responses", "short"), "Responses of three words or fewer."),
    (
        ("KL to the reference (k1)", "ref_kl", "KL to the reference", "KL"),
        "How far the trained model is from the model without its adapter, in nats per response; 0 "
        "is the same.",
    ),
    (
        ("KL coefficient", "kl_coef"),
        "Score units that a nat of distance from the reference costs in training.",
    ),
    (
        ("95 % interval", "Interval"),
        "The range that holds the true change in 95 of 100 such evaluations of the same training "
        "run, other prompts drawn. It does not cover other training seeds.",
    ),
    (
        ("Verdict",),
        "Better or worse where the 95 % interval is clear of zero; else there is no clear change.",
    ),
    (
        ("Bound", "budget"),
        "How much worse than at the start a measure may get. The result is the least toxic state "
        "that was inside all bounds.",
    ),
    (
        ("Reference",),
        "The model without its adapter. Beside a sample: a response that a person wrote.",
    ),
    (
        ("On the front",),
        "No other candidate has less toxicity without less quality (the Pareto front).",
    ),
    (
        ("Against the least toxic",),
        "Difference in toxicity to the first candidate, paired over responses to the same prompts.",
    ),
    (
        ("Least toxic in",),
        "In which fraction of draws of prompts it comes out as the least toxic. Where many are "
        "compared, the first looks better than it is.",
    ),
    (("Adapter",), "The small weights that were trained (LoRA); the model's own are unchanged."),
    (("Iteration",), "One turn of training: answers are sampled, scored, and learned from."),
    (("Rollout",), "The answers to training prompts that one iteration samples and learns from."),
)
_MEANINGS = {name.lower(): meaning for names, meaning in _TERMS for name in names}


def meaning_of(label: str) -> str:
    """What a label of a table means.

    Args:
        label: a metric's key or label, with its unit in parentheses or without.

    Returns:
        A sentence or two; empty for what is no term.
    """
    name = label.lower()
    return _MEANINGS.get(name) or _MEANINGS.get(name.partition(" (")[0], "")


def terms(labels: Iterable[str]) -> Sequence[tuple[str, str]]:
    """The glossary of a page.

    Args:
        labels: what stands on the page: headings, keys and labels of metrics.

    Returns:
        Names and meaning of each term that one of them is.
    """
    meanings = {meaning_of(label) for label in labels}
    return [(names[0], meaning) for names, meaning in _TERMS if meaning in meanings]
