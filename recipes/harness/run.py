# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""The same prompts through stage=evaluate and through evaluation harnesses: one table.

    python -m recipes.harness.run --model DIR --scorer DIR --label neutral --data FILE
        --lm-eval VENV [--lighteval VENV] [--adapter DIR] [--samples 5]

VENV is an environment with lora_detox and the harness. With the likeliest tokens all have to write
the same texts; with draws the table has the interval of the difference. What is there already is
not run again; `--report` only makes the table.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from recipes.harness.lighteval_model import model_folder
from recipes.harness.table import (
    System,
    markdown,
    read_lighteval,
    read_lm_eval,
    read_stage,
    stage_rows,
)
from recipes.lab.overrides import evaluated
from recipes.lab.process import ROOT, environment

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model with one way of decoding.

    Attributes:
        name: as the table shows it.
        folder: where everything of it is written.
        adapter: folder of its adapter; None for the bare model.
        prompts: how many.
        samples: responses per prompt; 1 takes the likeliest tokens.
    """

    name: str
    folder: Path
    adapter: Path | None
    prompts: int
    samples: int

    @property
    def task(self) -> str:
        """Name of the task in both harnesses."""
        return "rtp_local" if self.samples == 1 else "rtp_local_sampled"

    @property
    def asked(self) -> Path:
        """The prompts as stage=evaluate has cut them, alone in their folder."""
        return self.folder / "prompts" / "prompts.jsonl"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or hub id of a decoder-only model")
    parser.add_argument("--scorer", default="embedded:judge", help="folder or hub id")
    parser.add_argument("--label", default="", help="civil label of the scorer")
    parser.add_argument("--data", required=True, help="prompts, as data.path takes them")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--adapter", type=Path, help="evaluated too, on the model")
    parser.add_argument("--samples", type=int, default=1, help="above 1: sampled too")
    parser.add_argument("--sampled-prompts", type=int, help="of these; default: --prompts")
    parser.add_argument("--lm-eval", type=Path, help="environment of lm-evaluation-harness")
    parser.add_argument("--lighteval", type=Path, help="environment of lighteval")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="runs/harness", help="folder of the results")
    parser.add_argument("--report", action="store_true", help="only the table")
    return parser.parse_args()


def cases(given: argparse.Namespace) -> Iterator[Case]:
    """Base and adapter greedily; with `--samples` both sampled as well."""
    out = Path(given.out).resolve()
    adapters: dict[str, Path | None] = {"base": None}
    if given.adapter is not None:
        adapters["adapter"] = given.adapter.resolve()
    decoding = {"greedy": (given.prompts, 1)}
    if given.samples > 1:
        decoding["sampled"] = (given.sampled_prompts or given.prompts, given.samples)
    for (way, (prompts, samples)), (name, adapter) in product(decoding.items(), adapters.items()):
        said = "greedy" if samples == 1 else f"{samples} samples a prompt"
        yield Case(
            name=f"{name}, {prompts} prompts, {said}",
            folder=out / f"{name}_{way}",
            adapter=adapter,
            prompts=prompts,
            samples=samples,
        )


def run_stage_evaluate(given: argparse.Namespace, case: Case) -> None:
    """stage=evaluate by the RealToxicityPrompts protocol, and the prompts that it asked."""
    folder = case.folder / "stage"
    if not (folder / "summary.json").is_file():
        command = [sys.executable, "-m", "lora_detox", *stage_overrides(given, case)]
        execute([*command, f"hydra.run.dir={folder}"], given, case)
    rows = stage_rows(folder)[:: case.samples]
    case.asked.parent.mkdir(exist_ok=True)
    lines = (json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows)
    case.asked.write_text("".join(lines), encoding="utf-8")


def stage_overrides(given: argparse.Namespace, case: Case) -> list[str]:
    """Overrides of stage=evaluate; its reward is not compared."""
    label = [f"judge.label={given.label}"] if given.label else []
    return [
        "stage=evaluate",
        "task=gptj_continuation",
        "policy=local",
        f"policy.path={given.model}",
        "policy.dtype=float32",
        evaluated(given.model, case.adapter, case.folder.name),
        "reward=mini",
        "judge=local",
        f"judge.path={given.scorer}",
        *label,
        "data=local",
        f"data.path={given.data}",
        "data.query_tokens=[10,15]",
        "data.split_fractions=[0.6,0.2,0.2]",
        "evaluation.protocol=real_toxicity_prompts",
        f"evaluation.prompts={case.prompts}",
        f"evaluation.samples={case.samples}",
        f"evaluation.greedy={str(case.samples == 1).lower()}",
        "evaluation.audit=null",
        "evaluation.audit_texts=null",
        "device=cpu",
        f"threads={given.threads}",
    ]


def run_lm_eval(given: argparse.Namespace, case: Case) -> None:
    """`lm_eval` with the task of this folder."""
    folder = case.folder / "lm_eval"
    if next(folder.rglob("results_*.json"), None):
        return
    tasks, name = HERE, case.task
    if case.samples > 1:
        tasks, name = case.folder / "task", "rtp_local_repeated"
        tasks.mkdir(exist_ok=True)
        included = HERE / "rtp_local_sampled.yaml"
        text = f"include: {included}\ntask: {name}\nrepeats: {case.samples}\n"
        (tasks / "repeated.yaml").write_text(text, encoding="utf-8")
    model = f"pretrained={given.model},dtype=float32"
    model += f",peft={case.adapter}" if case.adapter else ""
    named = {"prompts": str(case.asked), "scorer": given.scorer, "label": given.label}
    command = [given.lm_eval / "bin" / "python", "-m", "lm_eval", "run", "--model", "hf"]
    command += ["--model_args", model, "--include_path", tasks, "--tasks", name]
    command += ["--metadata", json.dumps(named), "--device", "cpu", "--batch_size", "16"]
    command += ["--log_samples", "--output_path", folder]
    execute(command, given, case)


def run_lighteval(given: argparse.Namespace, case: Case) -> None:
    """`lighteval accelerate` with the custom tasks of this folder."""
    folder = case.folder / "lighteval"
    if next(folder.rglob("results_*.json"), None):
        return
    own = model_folder(given.model, case.adapter, case.samples > 1, case.folder / "model")
    decoding = SAMPLING if case.samples > 1 else "temperature:0"
    named = f"model_name={own},dtype=float32,batch_size=16,override_chat_template=false"
    command = [given.lighteval / "bin" / "python", "-m", "lighteval", "accelerate"]
    command += [f"{named},generation_parameters={{{decoding}}}", f"{case.task}|0"]
    command += ["--custom-tasks", HERE / "peer_lighteval.py", "--output-dir", folder]
    variables = {
        "LORA_DETOX_PROMPTS": str(case.asked),
        "LORA_DETOX_SCORER": given.scorer,
        "LORA_DETOX_LABEL": given.label,
        "LORA_DETOX_SAMPLES": str(case.samples),
    }
    execute([*command, "--save-details"], given, case, variables)


SAMPLING = "temperature:1.0,top_p:0.9,top_k:0"


def execute(
    command: list[str | Path],
    given: argparse.Namespace,
    case: Case,
    variables: dict[str, str] | None = None,
) -> None:
    """Run a command from the top of the checkout, offline; what it prints goes to log.txt."""
    case.folder.mkdir(parents=True, exist_ok=True)
    offline = (
        {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if os.path.isdir(given.model) else {}
    )
    surroundings = environment(given.threads) | offline | (variables or {})
    with (case.folder / "log.txt").open("a", encoding="utf-8") as log:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, cwd=ROOT, env=surroundings, stdout=log, stderr=log, check=False
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed; see {case.folder / 'log.txt'}")


def systems(given: argparse.Namespace, case: Case) -> list[System]:
    """What was measured of a case, stage=evaluate first."""
    measured = [read_stage(case.folder / "stage", case.samples)]
    if given.lm_eval:
        measured.append(read_lm_eval(case.folder / "lm_eval"))
    if given.lighteval:
        measured += read_lighteval(case.folder / "lighteval")
    return measured


def main() -> None:
    """Run every case, print the table and write table.md."""
    given = arguments()
    for name in ("model", "scorer", "data", "lm_eval", "lighteval"):
        value = getattr(given, name)
        if value and Path(value).exists():
            path = Path(os.path.abspath(value))
            setattr(given, name, path if name in ("lm_eval", "lighteval") else str(path))
    tables = []
    for case in cases(given):
        if not given.report:
            run_stage_evaluate(given, case)
            if given.lm_eval:
                run_lm_eval(given, case)
            if given.lighteval:
                run_lighteval(given, case)
        tables.append(f"**{case.name}**\n\n{markdown(systems(given, case))}")
    text = "\n\n".join(tables) + "\n"
    (Path(given.out) / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
