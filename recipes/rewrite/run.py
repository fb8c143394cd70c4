# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""SmolLM2 learns to rewrite toxic sentences: python -m recipes.rewrite.run.

Supervised on ParaDetox, then RL with J (civil style x similarity x fluency) as the reward, three
seeds; judged by a classifier that neither has seen. Finished steps are skipped, a stopped one goes
on from its checkpoint; `--report` only makes the table.
"""

import argparse
import json
import sys
from pathlib import Path

from lora_detox.api import compose_settings
from recipes.lab.options import queue_parser
from recipes.lab.overrides import evaluated
from recipes.lab.real import MODELS, RealModels, with_classifiers
from recipes.lab.run_queue import Run, Step, execute_all, going_on
from recipes.rewrite.settings import fluency_folder, rewriting, scoring
from recipes.rewrite.table import write_report
from recipes.rewrite.texts import Texts, write_texts

SUPERVISED = [
    "stage=sft",
    "adapter.targets=[all-linear]",
    "sft.batch_size=16",
    "sft.group_by_length=true",
    "sft.learning_rate=5e-4",
    "sft.warmup_steps=20",
    "sft.max_response_tokens=48",
    "sft.log_every=20",
    "evaluation.test_prompts=64",  # the untrained model goes on writing, which takes time
    "evaluation.validation_prompts=64",
]
TRAINING = [
    "algorithm.rollout_batch_size=64",
    "algorithm.minibatch_size=32",
    "algorithm.microbatch_size=32",
    "algorithm.ppo_epochs=2",
    "algorithm.learning_rate=3e-4",
    "algorithm.schedule=linear",
    "algorithm.warmup_iterations=5",
    "algorithm.average=0.9",
    "algorithm.kl.charge=k3_loss",
    "algorithm.kl.control=fixed",
    "algorithm.kl.coef=0.05",
    "algorithm.expert.prefix_credit_every=4",
    "budget.distinct_2=0.1",
    "budget.controller.multipliers={similarity: 4}",  # begun at 0 or 1 it comes too late
    "budget.controller.relevance_gain=1",
    "evaluation.every=10",
    "evaluation.validation_prompts=200",
    "evaluation.test_prompts=200",
    "checkpoint.every=5",
]
FLUENCY = [
    "stage=reward_model",
    "reward_model.labels=[fluent,faulty]",
    "reward_model.frozen_layers=0",
    "reward_model.dtype=auto",
    "reward_model.group_by_length=true",
    "reward_model.batch_size=32",
    "reward_model.learning_rate=1e-4",
    "reward_model.warmup_steps=100",
    "reward_model.log_every=50",
    "reward.probe=false",  # it reads civil and toxic sentences, which are alike to this one
    "data=local",
    "data.fields.prompt=text",
    "data.fields.toxicity=label",
    "data.split_fractions=[0.98,0.01,0.01]",
]
"""Beside folders and sizes."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = queue_parser(__doc__ or "", "runs/rewrite")
    parser.add_argument("--models", default=MODELS, help="folder of recipes/real_classifiers")
    parser.add_argument("--iterations", type=int, default=30, help="of RL, each seed")
    parser.add_argument("--epochs", type=float, default=0.25, help="of SFT")
    parser.add_argument("--test", type=int, default=1000, help="held-out pairs")
    parser.add_argument("--fluency-steps", type=int, default=800, help="of the fluency classifier")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("overrides", nargs="*", help="of SFT and RL, as in evaluation.every=5")
    return parser.parse_args(words)


class Queue:
    """What there is to do.

    Args:
        given: the command line, `shared` absolute.
        models: folders of the models.
        texts: files of pairs.
    """

    def __init__(self, given: argparse.Namespace, models: RealModels, texts: Texts) -> None:
        self.given, self.models, self.texts = given, models, texts
        self.out = Path(given.out).resolve()

    def runs(self) -> list[list[Run]]:
        """Groups of runs; each needs those before it."""
        seeds = [self.seed(int(seed)) for seed in self.given.seeds.split(",")]
        return [[self.fluency()], [self.baselines(), self.supervised()], seeds]

    def fluency(self) -> Run:
        """A classifier of fluent text on MiniLM."""
        folder = fluency_folder(self.out).parent
        overrides = [
            *FLUENCY,
            f"reward_model.path={self.models.encoder}",
            f"reward_model.max_steps={self.given.fluency_steps}",
            "reward_model.epochs=10",
            f"data.path={self.texts.fluency}",
        ]
        return Run(name="fluency", folder=folder, steps=[self._stage(overrides, folder)])

    def baselines(self) -> Run:
        """The sentence itself, word deletion, the human references."""
        folder = self.out / "baselines"
        job, target = folder / "job.json", folder / "samples.jsonl"
        content = {
            "overrides": ["task=rewrite", "policy=mini", *scoring(self.models, self.out)],
            "train": str(self.texts.pairs("train")),
            "test": str(self.texts.pairs("test")),
            "target": str(target),
        }
        folder.mkdir(parents=True, exist_ok=True)
        job.write_text(json.dumps(content, indent=2), encoding="utf-8")
        command = [sys.executable, "-m", "recipes.rewrite.baselines", str(job)]
        return Run(name="baselines", folder=folder, steps=[Step(command=command, done=target)])

    def supervised(self) -> Run:
        """SFT on the pairs, and its judgement."""
        folder = self.out / "sft"
        overrides = [*SUPERVISED, f"sft.epochs={self.given.epochs}", *self.given.overrides]
        train = self._stage([*self._task(), *overrides], folder / "train")
        return Run(name="SFT", folder=folder, steps=[train, self._judged(folder)])

    def seed(self, seed: int) -> Run:
        """RL from the SFT adapter with one seed, and its judgement."""
        folder = self.out / f"seed{seed}"
        overrides = [
            *TRAINING,
            f"policy.adapter={self.out / 'sft' / 'train' / 'adapter'}",
            f"algorithm.iterations={self.given.iterations}",
            f"seed={seed}",
            *self.given.overrides,
        ]
        train = self._stage([*self._task(), *overrides], folder / "train")
        return Run(name=f"seed {seed}", folder=folder, steps=[train, self._judged(folder)])

    def _task(self) -> list[str]:
        return rewriting(self.models, self.texts, self.out)

    def _judged(self, folder: Path) -> Step:
        """The likeliest rewrite of every test pair."""
        overrides = [
            *self._task(),
            "stage=evaluate",
            evaluated(str(self.models.policy), folder / "train" / "adapter", folder.name),
            f"evaluation.prompts={self.given.test}",
            "evaluation.greedy=true",
        ]
        return self._stage(overrides, folder / "evaluate")

    def _stage(self, overrides: list[str], folder: Path) -> Step:
        command = [sys.executable, "-m", "lora_detox", *overrides]
        command += [f"threads={self.given.threads}", f"hydra.run.dir={folder}", *going_on(folder)]
        return Step(command=command, done=folder / "summary.json")


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    given.shared = str(Path(given.shared).resolve())
    out = Path(given.out)
    template = compose_settings(["task=rewrite"], out / "nothing").task.template
    texts = Texts(folder=out.resolve() / "texts")
    if not given.report:
        models = with_classifiers(given.models, given.shared)
        source = Path(given.shared) / "data" / "paradetox.pairs.jsonl.gz"
        texts = write_texts(source, texts.folder, test=given.test)
        for group in Queue(given, models, texts).runs():
            status = status or execute_all(group, jobs=given.jobs, retry=given.retry)
    write_report(out, texts.pairs("test"), template)
    return status


if __name__ == "__main__":
    sys.exit(main())
