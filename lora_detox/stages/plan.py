"""stage=plan: will it fit, and how long will it take? Memory and seconds, without weights."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from lora_detox.builders.data import prompt_template
from lora_detox.builders.policy import EMBEDDED_PREFIX, model_path
from lora_detox.builders.rows import load_data
from lora_detox.environment import prepare_process
from lora_detox.errors import DetoxError, SettingsError
from lora_detox.machine import CUDA_CONTEXT, PROCESS_GROWTH, resolve_device
from lora_detox.memory.advice import Advice, advise
from lora_detox.memory.predict import Machine, Prediction, memory_backbone, predict
from lora_detox.policy.families import family_of
from lora_detox.policy.preflight import BackbonePlan, read_config
from lora_detox.policy.token_ids import complete_ids
from lora_detox.policy.tokenizer import load_tokenizer
from lora_detox.positions import check_positions
from lora_detox.progress import phase
from lora_detox.prompts.batching import fixed_batches
from lora_detox.report.jsonl import write_json_atomic, write_text_atomic
from lora_detox.report.memory import print_memory
from lora_detox.settings import Settings, settings_yaml
from lora_detox.timing.predict import Seconds, faster, predict_seconds, refusal
from lora_detox.types import PromptBatch

GIB = 2**30
LONGEST_OF = 512
"""Training prompts whose longest stands for all."""


def run(settings: Settings) -> tuple[float, ...]:
    """Predict, print the table, and where it does not fit what to change; write plan.json.

    Args:
        settings: composed and checked; `plan` names the machine.

    Returns:
        The predicted peak in bytes, an objective of a sweep to minimise.

    Raises:
        DetoxError: a model whose shape is not known, or data that cannot be read.
    """
    prepare_process(settings.threads)
    if settings.debug.tiny_model:
        raise SettingsError(
            "debug.tiny_model: got true; stage=plan wants a real policy to plan for"
        )
    machine = machine_of(settings)
    path = model_path(settings.policy.path, settings)
    config, notes = policy_config(settings, path)
    query, more = longest_query(settings, config, path, readable=not notes)
    if not more:  # read from the data, or stated for the plan
        stated = settings.plan.query_tokens is not None
        key = "plan.query_tokens" if stated else "data.max_query_tokens"
        check_positions(config, query, settings.generation.response_tokens[1], query_key=key)

    def predicted(changed: Settings) -> Prediction:
        return predict(changed, config, path, query, machine)

    with phase("counting bytes on empty tensors"):
        prediction = predicted(settings)
    fits = prediction.total <= machine.available
    advice = [] if fits else advise(settings, predicted, machine.available)
    result = plan_dict(
        settings, prediction, machine, advice, [*notes, *more, *miniature_scorers(settings)]
    )
    result |= seconds_dict(settings, config, path, query, machine)
    folder = Path(settings.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomic(folder / "config.yaml", settings_yaml(settings))
    write_json_atomic(folder / "plan.json", result)
    write_json_atomic(folder / "summary.json", result)
    print_memory(result, folder / "plan.json", Console(highlight=False))
    return (float(prediction.total),)


def machine_of(settings: Settings) -> Machine:
    """The machine that is planned for, with what it has free.

    The baseline on a CPU is what this process holds with all modules of stage=detox imported.
    """
    device = settings.plan.device or resolve_device(settings.device).type
    baseline = CUDA_CONTEXT
    own = int(psutil.Process().memory_info().rss)
    if device == "cpu":
        importlib.import_module("lora_detox.stages.detox")
        own = int(psutil.Process().memory_info().rss)
        baseline = own + PROCESS_GROWTH
    if settings.plan.memory_gib is not None:
        available = int(settings.plan.memory_gib * GIB)
    elif device == "cuda":
        available = int(torch.cuda.mem_get_info(resolve_device(settings.device))[0])
    else:
        available = min(int(psutil.virtual_memory().available) + own, _container_limit())
    return Machine(device=device, available=available, baseline=baseline)


def _container_limit() -> int:
    """The memory limit of this process's control group, bytes; a huge number without one."""
    limits = [int(psutil.virtual_memory().total)]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(file)
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def policy_config(settings: Settings, path: str) -> tuple[PretrainedConfig, list[str]]:
    """The policy's configuration: read, or from `policy.shape` where the hub cannot be reached."""
    shape = dict(settings.policy.shape)
    try:
        return read_config(_plan_of(settings, path)), []
    except SettingsError as error:
        if not shape or Path(path).expanduser().exists():
            raise SettingsError(
                f"{error}; or say its shape: +policy.shape={{model_type: gpt2, ...}}, the keys of "
                "its config.json"
            ) from error
    config: PretrainedConfig = AutoConfig.for_model(**shape)
    complete_ids(config, {}, "policy.shape")
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, int | float):
            setattr(config, name, 0.0)
    return config, [f"{path} cannot be read here: its shape is that of policy.shape"]


def _plan_of(settings: Settings, path: str) -> BackbonePlan:
    policy = settings.policy
    return BackbonePlan(
        path=path, revision=policy.revision, trust_remote_code=policy.trust_remote_code
    )


def longest_query(
    settings: Settings, config: PretrainedConfig, path: str, *, readable: bool
) -> tuple[int, list[str]]:
    """Tokens of the longest query, read from the data where that and the tokenizer can be."""
    data = settings.data
    if settings.plan.query_tokens is not None:
        return settings.plan.query_tokens, []
    most = data.max_query_tokens if data.query_tokens is None else data.query_tokens[1]
    if not readable:  # asking the hub once more would take half a minute of retries
        return most, [f"queries counted at {most} tokens, as the tokenizer cannot be read"]
    try:
        batch, _ = training_prompts(settings, config, path)
    except (DetoxError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return most, [f"queries counted at {most} tokens, as the data cannot be read ({reason})"]
    return batch.query_ids.shape[1], []


def training_prompts(
    settings: Settings, config: PretrainedConfig, path: str
) -> tuple[PromptBatch, PreTrainedTokenizerBase]:
    """Some of the training prompts, as the policy reads them, and its tokenizer."""
    data = settings.data
    cut = None if data.query_tokens is None else (data.query_tokens[0], data.query_tokens[1])
    tokenizer = load_tokenizer(_plan_of(settings, path), config)
    rows = load_data(settings).train
    (batch,) = fixed_batches(
        rows,
        tokenizer,
        count=min(len(rows), LONGEST_OF),
        batch_size=LONGEST_OF,
        template=prompt_template(settings, tokenizer),
        max_query_tokens=data.max_query_tokens,
        query_tokens=cut,
        padding_side=family_of(config).padding_side,
        add_special_tokens=config.is_encoder_decoder,
    )
    return batch, tokenizer


def miniature_scorers(settings: Settings) -> list[str]:
    """Says that the scorers of a real policy are not counted, where those of the miniature are.

    Args:
        settings: composed and checked.

    Returns:
        A sentence, or none.
    """
    if settings.policy.path.startswith(EMBEDDED_PREFIX):
        return []
    scorers = (("reward", settings.reward), ("judge", settings.judge))
    small = [key for key, one in scorers if (one.path or "").startswith(EMBEDDED_PREFIX)]
    if not small:
        return []
    real = {"reward": "reward=roberta_dynabench", "judge": "judge=toxic_bert"}
    return [
        f"{' and '.join(small)} counted as the miniature's, a few MiB; a real one is not counted: "
        f"add {' '.join(real[key] for key in small)}, or your own"
    ]


def seconds_dict(
    settings: Settings, config: PretrainedConfig, path: str, query: int, machine: Machine
) -> dict[str, Any]:
    """What plan.json holds on time; why nothing, where nothing can be said."""
    reason = refusal(settings, machine.device)
    if reason is not None:
        return {"seconds": None, "no_seconds": reason}
    prompts, tokenizer = _prompts_to_time(settings, config, path, query)
    backbone = memory_backbone(settings, config, path, machine)
    backbone = replace(backbone, device=settings.device)
    with phase("timing an iteration with random weights", unit="responses written"):
        seconds = predict_seconds(settings, backbone, config, prompts, tokenizer)
    return {"seconds": _seconds_parts(settings, seconds)}


def _seconds_parts(settings: Settings, seconds: Seconds) -> dict[str, Any]:
    override, left, cost = faster(settings, seconds)
    return {
        "iteration": seconds.iteration,
        "phases": seconds.phases,
        "iterations": seconds.iterations,
        "evaluations": seconds.evaluations,
        "run": seconds.run,
        "layers_timed": list(seconds.layers),
        "largest": seconds.largest,
        "faster": {"override": override, "iteration": left, "cost": cost},
        "assumptions": list(seconds.notes),
    }


def _prompts_to_time(
    settings: Settings, config: PretrainedConfig, path: str, query: int
) -> tuple[PromptBatch, PreTrainedTokenizerBase | None]:
    """Prompts of the data, or one of the length that is planned for where there are none."""
    try:
        return training_prompts(settings, config, path)
    except (DetoxError, OSError, ValueError):
        ids = torch.ones(1, query, dtype=torch.long)
        prompt = PromptBatch(
            texts=[""], query_ids=ids, query_mask=ids.bool(), references=[[]], row_ids=["0"]
        )
        return prompt, None


def plan_dict(
    settings: Settings,
    prediction: Prediction,
    machine: Machine,
    advice: list[Advice],
    notes: list[str],
) -> dict[str, Any]:
    """What plan.json holds; all sizes in bytes."""
    return {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "quantization": settings.quantization.type.value,
        "device": machine.device,
        "total_bytes": prediction.total,
        "available_bytes": machine.available,
        "fits": prediction.total <= machine.available,
        "peak_phase": prediction.peak_phase,
        "stays": prediction.stays,
        "phases": prediction.phases,
        "assumptions": [*notes, *prediction.assumptions],
        "advice": [vars(one) for one in advice],
    }
