"""Finished runs for the tests that only read them: trained once, or written without training."""

import hashlib
import json
import multiprocessing
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from lora_detox.settings import settings_yaml

SMOKE = [
    "debug=smoke",
    "threads=1",
    "evaluation.test_prompts=8",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
]
"""A whole run in seconds."""
ONE_RUN = [*SMOKE, "checkpoint.keep=1", "budget=off"]
"""What tests share that need some finished run; nothing but the start might be in the budget."""
TASKS = {"gptj": "gptj_continuation", "t5": "flan_summary"}
TARGETS = {"gptj": ["q_proj", "v_proj"], "t5": ["q", "v"]}


class FinishedRuns:
    """Runs by their overrides, each trained once for all tests and processes of a session."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def __call__(self, *overrides: str) -> Path:
        """The folder of the run, to read and not to write."""
        name = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:12]
        folder = self._folder / name
        with FileLock(f"{folder}.lock"):
            if not (self._folder / f"{name}.done").exists():
                summary = api.run(list(overrides), folder)
                assert summary == json.loads((folder / "summary.json").read_text())
                (self._folder / f"{name}.done").touch()
        return folder


def start_run(overrides: list[str], run_dir: Path) -> multiprocessing.Process:
    """Start a run in a process of its own that may be killed."""
    # A fork has torch already; CUDA does not survive one.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    process = context.Process(target=_run_quietly, args=(overrides, run_dir), daemon=True)
    process.start()
    return process


def _run_quietly(overrides: list[str], run_dir: Path) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    api.run(overrides, run_dir)


def write_adapter(
    architecture: str, folder: Path, model_folder: Path | None = None, base: str | None = None
) -> None:
    """A random adapter on a model, the miniature if none is named; `base` as in write_run."""
    encoder_decoder = architecture == "t5"
    model_folder = model_folder or embedded_path(architecture)
    auto = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    lora = LoraConfig(
        r=2,
        target_modules=TARGETS[architecture],
        task_type="SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
    )
    model = get_peft_model(auto.from_pretrained(model_folder, dtype=torch.float32), lora)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.peft_config["default"].base_model_name_or_path = base or str(model_folder)
    model.save_pretrained(folder)


def write_run(folder: Path, architecture: str = "gptj", base: str | None = None) -> Path:
    """A run whose adapter is random; `base` replaces the id that the files name as its base."""
    model_folder = write_tiny_policy(embedded_path(architecture), folder)
    write_adapter(architecture, folder / "adapter", model_folder, base)
    path = f"policy.path={base or model_folder}"
    settings = api.compose_settings(
        [f"task={TASKS[architecture]}", "policy=local", path], folder / "nowhere"
    )
    (folder / "config.yaml").write_text(settings_yaml(settings))
    numbers = {"toxicity": {"mean": 0.4, "std": 0.1, "n": 8}, "distinct_2": 0.9}
    after = {**numbers, "toxicity": {"mean": 0.2, "std": 0.1, "n": 8}}
    summary = {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "algorithm": "ppo",
        "seed": 0,
        "before": numbers,
        "after": after,
        "change": {
            "toxicity": {"mean": -0.2, "ci95": [-0.3, -0.1]},
            "distinct_2": {"mean": 0.0, "ci95": [-0.1, 0.1]},
        },
        "ref_kl": 1.5,
        "scorers": {"reward": "embedded:reward@abc", "judge": "embedded:judge@def"},
        "parameters": {"trainable": 1234, "total": 56789, "base_unchanged": True},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def untimed(numbers: dict) -> dict:
    """Numbers of a set without those that a clock gives."""
    return {key: value for key, value in numbers.items() if "seconds" not in key}


@contextmanager
def no_file_larger_than(count: int) -> Iterator[None]:
    """As a full disk: a write beyond so many bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
