# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Methods on a model, each as a frontier: python -m recipes.method_frontiers.run.

    .venv/bin/python -m recipes.method_frontiers.run [--model smollm2 | t5_summary]
        [--only grpo,bad_words] [--seeds 0,1,2] [--iterations 24] [--prompts 355] [--peer VENV]
        [--out DIR] [--models DIR] [--retry] [--report]

Same base, prompts, reward, judge and bound on generated tokens; trained methods have the same
number of scored samples. Finished runs are skipped, so the command can be stopped and given again;
so are those whose numbers `results.json` in the folder of the results holds.
"""

import argparse
import sys
from pathlib import Path

from recipes.lab.bench import smollm2_bench
from recipes.lab.comparison import Comparison
from recipes.lab.options import comparison_parser
from recipes.lab.overrides import UNAUDITED, evaluated, training
from recipes.lab.pairs import write_pairs
from recipes.lab.real import MODELS, RealModels, stage_step, with_classifiers
from recipes.lab.run_queue import Run, Step, execute_all
from recipes.lab.subjects import QUALITIES, SUBJECTS
from recipes.method_frontiers.curves import BASE, kept_runs
from recipes.method_frontiers.methods import (
    DECODED,
    FROM_PAIRS,
    NEGATED,
    NEGATED_LORA,
    OURS_NAME,
    PEER,
    RANDOM,
    STRENGTHS,
    Knob,
    trained,
)
from recipes.method_frontiers.table import write_report

PAIRS = "pairs.jsonl"
"""Beside the results: what direction and projection are made from."""
PEER_RATE = "3e-4"
"""Of TRL 0.11.4; its default of 1.41e-5 is for whole weights and moves LoRA less."""
SFT = [
    "stage=sft",
    "sft.epochs=1",
    "sft.learning_rate=5e-4",
    "evaluation.test_prompts=16",
]
"""The toxic LoRA; some 10,000 texts, of which `--toxic-steps` minibatches of 16 are read."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `words` in its place."""
    return parsed(command_line(__doc__ or ""), words)


def command_line(doc: str) -> argparse.ArgumentParser:
    """The options of the queue and of its timing.

    Args:
        doc: docstring of the program.
    """
    parser = comparison_parser(doc, "runs/method_frontiers")
    parser.set_defaults(iterations=24, batch=32, prompts=355)
    parser.add_argument("--model", choices=sorted(SUBJECTS), default="smollm2")
    parser.add_argument("--models", default=MODELS, help="folder of recipes/real_classifiers")
    parser.add_argument("--only", help="methods, by comma")
    parser.add_argument("--threads", type=int, default=2, help="of each run")
    parser.add_argument("--toxic-steps", type=int, default=200, help="of the toxic LoRA")
    return parser


def parsed(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """A command line with absolute folders; `out` is that of the model."""
    given = parser.parse_args(words)
    given.shared = str(Path(given.shared).resolve())
    given.out = Path(given.out).resolve() / given.model
    return given


class Queue:
    """The runs of one command line.

    Args:
        given: the command line.
        models: folders of the models.
        made: folder of pairs and trained adapters; None means that of the results.
    """

    def __init__(
        self, given: argparse.Namespace, models: RealModels, made: Path | None = None
    ) -> None:
        self.given, self.models = given, models
        self.made: Path = made or given.out
        self.subject = SUBJECTS[given.model](models, given.shared)
        self.trained = trained(given.model, self.subject.budget)
        bench = smollm2_bench(models, given.shared)
        self.kept = set(kept_runs(given.out))
        self.comparison = Comparison.of(given, bench)  # of TRL 0.11.4, which has SmolLM2 alone

    @property
    def methods(self) -> list[str]:
        """Names of all methods of this command line, in the order in which they run."""
        peers = [PEER] if self.given.peer and self.given.model == "smollm2" else []
        return [NEGATED_LORA, *DECODED, *self.trained, RANDOM, *peers]

    def runs(self, methods: list[str]) -> list[Run]:
        """The base, then every method with every seed; not those whose numbers are kept."""
        queue = [self.base()]
        for seed in map(int, self.given.seeds.split(",")):
            for method in methods:
                if method in DECODED:
                    if seed == 0:  # nothing is trained, so there is one of each
                        queue.append(self.decoded(method, DECODED[method]))
                else:
                    queue.append(self._run(f"{method}/seed{seed}", self._steps(method, seed)))
        return [run for run in queue if run.steps and run.name not in self.kept]

    def base(self) -> Run:
        """The start."""
        return self._run(BASE, [self._judge(BASE, "plain", None)])

    def adapter(self, name: str) -> Run:
        """An adapter that is there, at strength 1.

        Args:
            name: of its run, and of this one.
        """
        adapter = self.made / name / "train" / "adapter"
        return self._run(name, [self._judge(name, "plain", adapter)])

    def _steps(self, method: str, seed: int) -> list[Step]:
        name = f"{method}/seed{seed}"
        folder = self.given.out / name
        adapter = folder / "train" / "adapter"
        if method == NEGATED_LORA:
            return [
                *self._toxic_lora(folder, seed),
                self._judge(name, "plain", adapter, NEGATED),
            ]
        if method == RANDOM:
            source = self.given.out / OURS_NAME / f"seed{seed}" / "train" / "adapter"
            made = folder / "train" / "adapter" / "adapter_config.json"
            command = [sys.executable, "-m", "recipes.lab.random_adapter", str(source)]
            draw = Step(command=[*command, str(adapter), "--seed", str(seed)], done=made)
            return [draw, self._judge(name, "plain", adapter, STRENGTHS)]
        if method == PEER:
            *steps, _ = self.comparison.peer_run(name, PEER_RATE, seed).steps
            return [*steps, self._judge(name, "plain", adapter, STRENGTHS)]
        sizes = training(self.given.iterations, self.given.batch, seed)
        sizes.append("evaluation.every=12")  # nothing is chosen by it: the end is judged
        train = self._step(folder / "train", [*sizes, *self.trained[method]])
        return [train, self._judge(name, "plain", adapter, STRENGTHS)]

    def _toxic_lora(self, folder: Path, seed: int) -> list[Step]:
        """SFT on toxic texts; where the subject wants them, those of the reward's half."""
        texts = folder / "toxic.jsonl"
        command = [sys.executable, "-m", "recipes.lab.toxic_texts"]
        command += [str(self.models.labelled("reward")), str(texts), "--seed", str(seed)]
        write = Step(command=command, done=texts)
        overrides = [*SFT, f"sft.max_steps={self.given.toxic_steps}", f"seed={seed}"]
        overrides += [one.format(texts=texts) for one in self.subject.toxic]
        train = self._step(folder / "train", overrides)
        return [write, train] if self.subject.wants_texts else [train]

    def decoded(self, method: str, knob: Knob) -> Run:
        """A decoding at each setting of its knob, in one process each.

        Args:
            method: of `DECODED`.
            knob: its own, or one with fewer settings.
        """
        steps = []
        for value in knob.values:
            keys = [f"decoding.{key}" for key in knob.fixed]
            keys += [f"decoding.{knob.key}={value}"] if knob.key else []
            if method in FROM_PAIRS:
                keys.append(f"decoding.examples={self.made / PAIRS}")
            if method == "bad_words":
                keys.append(f"decoding.examples={self.models.labelled('reward')}")
            if method == "anti_expert":
                toxic = self.made / NEGATED_LORA / "seed0" / "train" / "adapter"
                keys.append(f"decoding.adapter={toxic}")
            name = f"{method}/{value:g}"
            if name not in self.kept:
                steps.append(self._judge(name, method, None, extra=keys))
        return self._run(method, steps)

    def _judge(
        self,
        name: str,
        decoding: str,
        adapter: Path | None,
        strengths: str = "[]",
        extra: list[str] | None = None,
    ) -> Step:
        """Answer the held-out prompts."""
        overrides = [
            "stage=evaluate",
            f"evaluation.prompts={self.given.prompts}",
            f"evaluation.strengths={strengths}",
            f"decoding={decoding}",
            *(extra or []),
            evaluated(self.subject.policy, adapter, name),
        ]
        return self._step(self.given.out / name / "evaluate", overrides)

    def _step(self, folder: Path, overrides: list[str]) -> Step:
        return stage_step(self.given, [*self.subject.task, *UNAUDITED], folder, overrides)

    def _run(self, name: str, steps: list[Step]) -> Run:
        return Run(name=name, folder=self.given.out / name, steps=steps)


def main() -> int:
    """Do what is left to do, then report; 1 where something failed."""
    status = 0
    given = arguments()
    if not given.report:
        models = with_classifiers(given.models, given.shared)
        queue = Queue(given, models)
        methods = given.only.split(",") if given.only else queue.methods
        if unknown := sorted(set(methods) - set(queue.methods)):
            sys.exit(f"--only: got {', '.join(unknown)}; want some of {', '.join(queue.methods)}")
        write_pairs(Path(given.shared) / "data" / "paradetox.pairs.jsonl.gz", given.out / PAIRS)
        status = execute_all(queue.runs(methods), jobs=given.jobs, retry=given.retry)
    write_report(given.out, QUALITIES[given.model])
    return status


if __name__ == "__main__":
    sys.exit(main())
