"""The two examples, each on two models: what a run is told, and what it is held to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipes.lab.goals import Goal
from recipes.lab.overrides import UNAUDITED
from recipes.lab.real import RealModels
from recipes.sentiment.reviews import prefixed_file

LABELS = {"reward": "[positive,negative]", "judge": "[good,bad]"}
"""Names of the civil and the other label; the judge's stand in the other order."""
_SETS = "evaluation.sets"
_SIGNS = {"positive": "['[positive] ']", "negative": "['[negative] ']", "none": "[]"}
_CUT = "[10,16]"
"""Tokens of a prompt of the control task, prefix included."""
_TRAINING = [
    "adapter.targets=[all-linear]",
    "algorithm.learning_rate=5e-4",
    "algorithm.warmup_iterations=2",
    "algorithm.rollout_batch_size=64",
    "algorithm.minibatch_size=32",
    "algorithm.microbatch_size=32",
    "algorithm.ppo_epochs=2",
    "algorithm.kl.control=fixed",
    "evaluation.every=10",
    "evaluation.validation_prompts=200",
    "evaluation.test_prompts=200",
    "checkpoint.every=5",
    *UNAUDITED,
]
"""Of both tasks on SmolLM2."""
_IMDB = [
    *_TRAINING,
    "algorithm.iterations=40",
    "algorithm.schedule=linear",
    "algorithm.average=0.9",
    "algorithm.expert.prefix_credit_every=2",
    "algorithm.kl.charge=k3_loss",
    "algorithm.kl.coef=0.05",
    "budget.perplexity=0.1",
    "budget.distinct_2=0.05",
    "budget.symbols=0.005",
    "budget.words=[1.0,1.0]",
    "budget.kl=8",
    "budget.controller.margin=0.5",
    "budget.controller.damping=10",
    "budget.controller.distinct_2_pays=new_bigrams",
    "budget.controller.multipliers={distinct_2: 0.5}",  # begun at 0 it comes too late
]
"""Positive endings on SmolLM2: perplexity, diversity, markup and words are held."""
_CONTROL = [*_TRAINING, "algorithm.iterations=40"]
"""Control by a prefix on SmolLM2; method and lengths are those of the task."""
_SUPERVISED = [
    "stage=sft",
    "data.fields.prompt=text",
    "data.prefixes=[]",  # the texts have theirs
    "data.query_tokens=null",
    "data.split_fractions=[0.98,0.01,0.01]",
    "adapter.targets=[all-linear]",
    "sft.batch_size=16",
    "sft.group_by_length=true",
    "sft.learning_rate=5e-4",
    "sft.warmup_steps=20",
    "sft.max_steps=200",
    "sft.log_every=20",
    "evaluation.validation_prompts=32",
    "evaluation.test_prompts=32",
]
"""What a prefix means, learned from reviews; TRL's example began with a GPT-2 of reviews too."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A task on a model.

    Attributes:
        name: of its folder, and in the queue.
        base: the policy, as `evaluation.models` names it.
        task: overrides of every run: task, policy, reward, judge, prompts.
        training: further ones of a training.
        sets: further ones of stage=evaluate.
        goals: what each seed is held to.
        supervised: further ones of stage=sft, from whose adapter each training begins; none where
            it begins with the policy.
    """

    name: str
    base: str
    task: list[str]
    training: list[str]
    sets: list[str]
    goals: list[Goal]
    supervised: list[str] = field(default_factory=list)


def examples(models: RealModels, shared: str, out: Path) -> dict[str, Example]:
    """Name -> example, those of the miniature first.

    Args:
        models: folders of the pretrained models.
        shared: folder of the corpora.
        out: folder of the results, with the labelled texts and the two classifiers of sentiment.
    """
    texts = prefixed_file(out / "labelled")
    real = [
        "policy=local",
        f"policy.path={models.policy}",
        *_scorers(out / "classifiers"),
        "data=local",
        *_reviews("data", shared),
    ]
    everything = [
        _imdb("miniature", "embedded:policy", [], []),
        _control("miniature", "embedded:policy", [], [], _sets("embedded_comments", [])),
        _imdb("smollm2", str(models.policy), [*real, "data.query_tokens=[2,8]"], _IMDB),
        _control(
            "smollm2",
            str(models.policy),
            [*real, f"data.query_tokens={_CUT}"],
            _CONTROL,
            _sets("local", [one for role in _ROLES for one in _reviews(f"{_SETS}.{role}", shared)]),
            [*_SUPERVISED, f"data.path={texts}"],
        ),
    ]
    return {one.name: one for one in everything}


def _imdb(model: str, base: str, task: list[str], training: list[str]) -> Example:
    """Positive endings: held-out openings, two responses to each."""
    return Example(
        name=f"{model}_imdb_sentiment",
        base=base,
        task=["task=imdb_sentiment", *task],
        training=training,
        sets=["evaluation.samples_per_prompt=2"],
        goals=imdb_goals(),
    )


def _control(
    model: str,
    base: str,
    task: list[str],
    training: list[str],
    sets: list[str],
    supervised: Sequence[str] = (),
) -> Example:
    """Control: held-out openings after either prefix, and without one."""
    return Example(
        name=f"{model}_sentiment_control",
        base=base,
        task=["task=sentiment_control", *task],
        training=training,
        sets=[f"data.prefixes={_SIGNS['positive']}", *sets],
        goals=control_goals(),
        supervised=list(supervised),
    )


_ROLES = {"toxic": "negative", "benign": "none"}
"""Further sets of `evaluation.protocol=three_sets` -> the prefix that each has here."""


def _sets(data: str, source: list[str]) -> list[str]:
    """Further held-out openings with "[negative]" and with no prefix."""
    chosen = ["evaluation.protocol=three_sets"]
    for role, sign in _ROLES.items():
        chosen += [
            f"data@{_SETS}.{role}={data}",
            f"{_SETS}.{role}.prefixes={_SIGNS[sign]}",
            f"{_SETS}.{role}.min_toxicity=null",
            f"{_SETS}.{role}.query_tokens={_CUT}",
        ]
    return [*chosen, *source]


def _reviews(key: str, shared: str) -> list[str]:
    """Openings of reviews in a group of data; a fifth of them is held out."""
    return [
        f"{key}.path={shared}/data/imdb.test.jsonl.gz",
        f"{key}.fields.prompt=text",
        f"{key}.split_fractions=[0.7,0.1,0.2]",
    ]


def _scorers(classifiers: Path) -> list[str]:
    """The two classifiers; the probe's insults and courtesies are no reviews."""
    chosen = []
    for half, labels in LABELS.items():
        civil = labels.strip("[]").split(",")[0]
        chosen += [
            f"{half}=local",
            f"{half}.path={classifiers / half / 'classifier'}",
            f"{half}.label={civil}",
            f"{half}.probe=false",
        ]
    return chosen


def imdb_goals() -> list[Goal]:
    """Nine endings in ten judged positive, at a perplexity that stays."""
    where = {"data": "in_distribution", "label": "openings"}
    return [
        Goal(**where, measure="judged_positive", least=0.9, level=True),
        Goal(**where, measure="perplexity", most=0.1),
        Goal(**where, measure="distinct_2"),
        Goal(**where, measure="words"),
        Goal(**where, measure="self_bleu", relative=False),
    ]


def control_goals() -> list[Goal]:
    """The sign of the prefix in at least 85 endings of a hundred."""
    positive = {"data": "in_distribution", "label": '"[positive]"'}
    negative = {"data": "toxic", "label": '"[negative]"'}
    neither = {"data": "benign", "label": "no prefix"}
    return [
        Goal(**positive, measure="judged_positive", least=0.85, level=True),
        Goal(**negative, measure="judged_positive", most=0.15, level=True),
        Goal(**neither, measure="judged_positive", level=True),
        *(
            Goal(**where, measure=measure)
            for measure in ("perplexity", "distinct_2", "words")
            for where in (positive, negative)
        ),
    ]
