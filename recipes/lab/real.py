"""Real pretrained models beside the checkout, and the labelled halves that classifiers learn from.

The scripts of `shared/real` fetch them; what is there already is left alone.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.lab.options import require_shared
from recipes.lab.process import ROOT
from recipes.lab.run_queue import Step, going_on

MODELS = "runs/real"
"""Where they go by default."""
BUDGET = ["budget=strict", "budget.words=[1.0,1.0]"]
"""What a training on SmolLM2 may cost."""
BUDGET_SUMMARY = [
    "budget.words=[1.05,1.05]",  # held-out summaries get 5 to 15 % shorter than what is aimed at
    "budget.distinct_2=0.05",
    "budget.kl=3.3",
    "budget.controller.margin=1",
    "budget.controller.multipliers={rougeL: 2}",  # begun at 0 it is 0.3 after 40 iterations
    "reward.length_debias=true",
]
"""What a training on summaries may cost, beside the start's ROUGE-L (the default)."""


@dataclass(frozen=True, kw_only=True)
class RealModels:
    """Folders of the pretrained models and of the labelled texts.

    Attributes:
        home: the folder that holds them.
    """

    home: Path

    @property
    def encoder(self) -> Path:
        """all-MiniLM-L6-v2, a BERT encoder of 6 layers of width 384."""
        return self.home / "minilm-l6"

    @property
    def policy(self) -> Path:
        """SmolLM2-135M-Instruct."""
        return self.home / "smollm2-135m"

    def labelled(self, half: str) -> Path:
        """Labelled texts (`text`, `label`) of a half: reward | judge."""
        return self.home / "labelled" / f"{half}.jsonl"

    def classifier(self, half: str) -> Path:
        """The classifier that recipes/real_classifiers trained on a half."""
        return self.home / "classifiers" / half / "classifier"


def scorers(models: RealModels) -> list[str]:
    """Overrides of reward and judge: the two classifiers of recipes/real_classifiers."""
    return [
        "reward=local",
        f"reward.path={models.classifier('reward')}",
        "reward.label=nothate",
        "judge=local",
        f"judge.path={models.classifier('judge')}",
        "judge.label=neutral",
    ]


def continuation(models: RealModels, shared: str) -> list[str]:
    """Overrides of the continuation task on SmolLM2: policy, scorers, encoder, prompts.

    The prompts are those of RealToxicityPrompts above toxicity 0.3, cut to 10 to 15 tokens; a fifth
    of them is held out.

    Args:
        models: folders of the models.
        shared: folder of the corpora.

    Returns:
        The overrides.
    """
    return [
        "task=gptj_continuation",
        "policy=local",
        f"policy.path={models.policy}",
        *scorers(models),
        f"evaluation.encoder={models.encoder}",
        "data=local",
        f"data.path={shared}/data/rtp.val.jsonl.gz",
        "data.min_toxicity=0.3",
        "data.query_tokens=[10,15]",
        "data.split_fractions=[0.6,0.2,0.2]",
    ]


def stage_step(
    given: argparse.Namespace, task: Sequence[str], folder: Path, overrides: Sequence[str]
) -> Step:
    """`python -m lora_detox` in a folder of its own; goes on where it was stopped.

    Args:
        given: a command line with `threads`.
        task: overrides of every run, as those of `continuation`.
        folder: of the run.
        overrides: beside them.

    Returns:
        The step.
    """
    command = [sys.executable, "-m", "lora_detox", *task, *overrides]
    command += [f"threads={given.threads}", f"hydra.run.dir={folder}", *going_on(folder)]
    return Step(command=command, done=folder / "summary.json")


def real_models(home: str, shared: str) -> RealModels:
    """Fetch the models and write the labelled texts where they are missing.

    Args:
        home: the folder that holds them.
        shared: folder of the corpora and of the scripts.

    Returns:
        Where everything is.
    """
    require_shared(shared)
    models = RealModels(home=Path(home).resolve())
    scripts = Path(shared) / "real"
    if not (models.encoder.is_dir() and models.policy.is_dir()):
        _run([scripts / "get_models.py", models.home])
    if not models.labelled("judge").is_file():
        _run([scripts / "make_labelled.py", Path(shared) / "data", models.home / "labelled"])
    return models


def with_classifiers(home: str, shared: str) -> RealModels:
    """The same where recipes/real_classifiers has been run; ends the program where it has not.

    Args:
        home: as for `real_models`.
        shared: likewise.

    Returns:
        Where everything is.
    """
    require_shared(shared)
    models = RealModels(home=Path(home).resolve())
    missing = [half for half in ("reward", "judge") if not models.classifier(half).is_dir()]
    if missing:
        sys.exit(
            f"no {' and '.join(missing)} classifier in {models.home}/classifiers; first run "
            "python -m recipes.real_classifiers.run, or say where they are with --models DIR"
        )
    return real_models(home, shared)


def _run(command: list[Path]) -> None:
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)
