"""What every run of the comparison shares: base, prompts, scorers, and how it is judged."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = "lab/gptj-comments"
REWARD, CIVIL = "lab/roberta-reward", "nothate"
SETS = ("in_distribution", "toxic", "benign")


def lab(shared: str) -> list[str]:
    """Overrides of the lab: policy, reward, judge, prompts above toxicity 0.3 cut to 10-15 tokens.

    Args:
        shared: folder of corpora and models.
    """
    return [
        "task=gptj_continuation",
        "threads=1",
        "policy=local",
        f"policy.path={shared}/{BASE}",
        "policy.dtype=bfloat16",
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
        "data.split_fractions=[0.7,0.1,0.2]",
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


def judging(shared: str, prompts: int, sets: bool = True) -> list[str]:
    """Overrides of stage=evaluate on what training never saw.

    Args:
        shared: folder of corpora and models.
        prompts: of each set.
        sets: also jigsaw_balanced's toxic rows and Wikipedia paragraphs; False asks the held-out
            part of RealToxicityPrompts alone.
    """
    overrides = ["stage=evaluate", f"evaluation.prompts={prompts}"]
    if not sets:
        return overrides
    data = "evaluation.sets"
    return [
        *overrides,
        "evaluation.protocol=three_sets",
        f"data@{data}.toxic=local",
        f"data@{data}.benign=local",
        f"{data}.toxic.path={shared}/data/jigsaw_balanced.test.jsonl.gz",
        f"{data}.toxic.fields.prompt=text",
        f"{data}.toxic.fields.toxicity=label",
        f"{data}.toxic.min_toxicity=0.5",
        f"{data}.toxic.query_tokens=[10,15]",
        f"{data}.benign.path={shared}/data/wikipedia_paragraphs.jsonl.gz",
        f"{data}.benign.fields.prompt=text",
        f"{data}.benign.query_tokens=[10,15]",
    ]


def judged(base: str, adapter: Path | None, name: str) -> str:
    """The override that names what is evaluated: the base, or an adapter on it."""
    entry = f"path: '{base}', name: '{name}'"
    if adapter is not None:
        entry += f", adapter: '{adapter}'"
    return f"evaluation.models=[{{{entry}}}]"
