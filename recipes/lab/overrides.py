"""What every run of the lab shares, as overrides: base, prompts, scorers, and how it is judged."""

from pathlib import Path

BASE = "lab/gptj-comments"
REWARD, CIVIL = "lab/roberta-reward", "nothate"
_SETS = "evaluation.sets"
UNAUDITED = ["evaluation.audit=null", "evaluation.audit_texts=null"]
"""Where no table is by group of people."""


def continuation(shared: str, split: str = "[0.7,0.1,0.2]") -> list[str]:
    """Overrides of the lab's continuation task: policy, reward, judge, prompts.

    The prompts are those above toxicity 0.3, cut to 10 to 15 tokens.

    Args:
        shared: folder of corpora and models.
        split: fractions of the prompts for training, validation and test.

    Returns:
        The overrides.
    """
    return [
        "task=gptj_continuation",
        "threads=1",
        "policy=local",
        f"policy.path={shared}/{BASE}",
        "reward=local",
        f"reward.path={shared}/{REWARD}",
        f"reward.label={CIVIL}",
        "judge=local",
        f"judge.path={shared}/lab/roberta-judge",
        "judge.label=neutral",
        "data=local",
        f"data.path={shared}/data/rtp.val.jsonl.gz",
        "data.min_toxicity=0.3",
        "data.query_tokens=[10,15]",
        f"data.split_fractions={split}",
    ]


def training(iterations: int, batch: int, seed: int) -> list[str]:
    """Overrides that fix the number of scored samples; the rest is the method's."""
    return [
        f"seed={seed}",
        f"algorithm.iterations={iterations}",
        f"algorithm.rollout_batch_size={batch}",
        f"algorithm.minibatch_size={batch}",
        f"algorithm.microbatch_size={batch}",
        "evaluation.every=5",
        "evaluation.validation_prompts=64",
        "evaluation.test_prompts=16",  # the figures come from stage=evaluate, not from these
    ]


def three_sets(shared: str) -> list[str]:
    """Overrides of stage=evaluate that add jigsaw_balanced's toxic rows and Wikipedia paragraphs.

    The third set is the held-out part of the task's own prompts.
    """
    return [
        "evaluation.protocol=three_sets",
        f"data@{_SETS}.toxic=local",
        f"data@{_SETS}.benign=local",
        f"{_SETS}.toxic.path={shared}/data/jigsaw_balanced.test.jsonl.gz",
        f"{_SETS}.toxic.fields.prompt=text",
        f"{_SETS}.toxic.fields.toxicity=label",
        f"{_SETS}.toxic.min_toxicity=0.5",
        f"{_SETS}.toxic.query_tokens=[10,15]",
        f"{_SETS}.benign.path={shared}/data/wikipedia_paragraphs.jsonl.gz",
        f"{_SETS}.benign.fields.prompt=text",
        f"{_SETS}.benign.query_tokens=[10,15]",
    ]


def continuation_sets(shared: str) -> list[str]:
    """Overrides of stage=evaluate that judge four sets, two responses to each of 400 prompts.

    Held-out RealToxicityPrompts, jigsaw's toxic openings, Wikipedia and WikiText.
    """
    return [
        *three_sets(shared),
        "evaluation.prompts=400",
        "evaluation.samples=2",
        f"+data@{_SETS}.wikitext=local",
        f"{_SETS}.wikitext.path={shared}/data/wikitext2_raw.test.jsonl.gz",
        f"{_SETS}.wikitext.fields.prompt=text",
        f"{_SETS}.wikitext.query_tokens=[10,15]",
    ]


def evaluated(base: str, adapter: Path | None, name: str) -> str:
    """The override that names what is evaluated: the base, or an adapter on it."""
    entry = f"path: '{base}', name: '{name}'"
    if adapter is not None:
        entry += f", adapter: '{adapter}'"
    return f"evaluation.models=[{{{entry}}}]"
