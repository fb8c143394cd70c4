"""Runs on one bench that differ in the method alone."""

import json
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from recipes.lab.bench import Bench
from recipes.lab.overrides import evaluated, training
from recipes.lab.run_queue import Run, Step


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What all runs of a comparison share.

    Attributes:
        out: folder of the results.
        bench: base, scorers and prompts.
        iterations: of each run.
        batch: scored samples per iteration.
        prompts: held out, that are judged.
        peer: environment of TRL 0.11.4, a folder with bin/python; None runs no peer.
    """

    out: Path
    bench: Bench
    iterations: int
    batch: int
    prompts: int
    peer: Path | None = None

    @classmethod
    def of(cls, given: Namespace, bench: Bench) -> "Comparison":
        """From a command line of `options.comparison_parser`."""
        return cls(
            out=Path(given.out).resolve(),
            bench=bench,
            iterations=given.iterations,
            batch=given.batch,
            prompts=given.prompts,
            peer=Path(given.peer) if given.peer else None,
        )

    def base_run(self) -> Run:
        """The base alone, which every change is measured from."""
        folder = self.out / "base"
        return self._run(folder, [self._job(folder, self._judging(folder, None))])

    def own_run(self, name: str, overrides: list[str], seed: int) -> Run:
        """Train and judge in one process.

        Args:
            name: of the run, which is its folder below `out`.
            overrides: of the method, beside the shared ones.
            seed: of the run.

        Returns:
            The run, whose job is written.
        """
        folder = self.out / name
        job = self._judging(folder, folder / "train" / "adapter")
        job["train"] = [*self._training(seed), *overrides]
        return self._run(folder, [self._job(folder, job)])

    def peer_run(self, name: str, rate: str, seed: int, last_layers: int = 0) -> Run:
        """Prompts by us, training by TRL 0.11.4, judging by us.

        Args:
            name: of the run, which is its folder below `out`.
            rate: the learning rate.
            seed: of the run.
            last_layers: how many layers from the end get adapters; 0 for all.

        Returns:
            The run, whose jobs are written.
        """
        folder, prompts = self.out / name, self._prompts_step(seed)
        options = {
            "--model": self.bench.base,
            "--reward": self.bench.reward,
            "--civil": self.bench.civil,
            "--prompts": str(prompts.done),
            "--out": str(folder / "train"),
            "--lr": rate,
            "--seed": str(seed),
            "--last-layers": str(last_layers),
            "--targets": self.bench.targets,
        }
        if self.peer is None:
            raise ValueError("a peer's run wants an environment of TRL 0.11.4")
        program = str(Path(__file__).with_name("peer_ppo.py"))
        words = [word for pair in options.items() for word in pair]
        train = Step(
            command=[str(self.peer / "bin" / "python"), program, *words],
            done=folder / "train" / "summary.json",
        )
        judge = self._job(folder, self._judging(folder, folder / "train" / "adapter"))
        return self._run(folder, [prompts, train, judge])

    def _run(self, folder: Path, steps: list[Step]) -> Run:
        return Run(name=self._name(folder), folder=folder, steps=steps)

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.out).as_posix()

    def _training(self, seed: int) -> list[str]:
        sizes = training(self.iterations, self.batch, seed)
        return [*self.bench.task, *sizes, *self.bench.training]

    def _judging(self, folder: Path, adapter: Path | None) -> dict[str, object]:
        """The part of a job that asks what training never saw."""
        overrides = [
            *self.bench.task,
            "stage=evaluate",
            f"evaluation.prompts={self.prompts}",
            evaluated(self.bench.base, adapter, self._name(folder)),
        ]
        return {"folder": str(folder), "evaluate": overrides}

    def _job(self, folder: Path, job: dict[str, object]) -> Step:
        return job_step(folder / "evaluate.job.json", job, folder / "evaluate" / "summary.json")

    def _prompts_step(self, seed: int) -> Step:
        """The training prompts of a seed, written once for every peer."""
        done = self.out / "prompts" / f"seed{seed}_{self.iterations}x{self.batch}.json"
        job: dict[str, object] = {"prompts": str(done), "train": self._training(seed)}
        return job_step(done.with_suffix(".job.json"), job, done)


def job_step(file: Path, job: dict[str, object], done: Path) -> Step:
    """A process of ours; what it has to do is written beside its results.

    Args:
        file: where the job is written.
        job: as job.py reads it.
        done: file that is there once it is finished.

    Returns:
        The step.

    Raises:
        SystemExit: it was finished with other settings.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(job, indent=1)
    if done.is_file() and file.is_file() and file.read_text(encoding="utf-8") != text:
        sys.exit(
            f"{file.parent} holds a run with other settings; give the same ones, or another --out"
        )
    file.write_text(text, encoding="utf-8")
    return Step(command=[sys.executable, "-m", "recipes.lab.job", str(file)], done=done)
