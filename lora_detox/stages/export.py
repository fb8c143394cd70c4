"""stage=export: a finished run -> a folder with the adapter and its card, checked, maybe pushed."""

import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers.utils.hub import cached_file, extract_commit_hash

from lora_detox.environment import prepare_process, versions
from lora_detox.errors import ExportError
from lora_detox.export.finished_run import FinishedRun, read_run
from lora_detox.export.merge import logit_change, merge
from lora_detox.export.push import MERGED, check_token, folder_files, push_folder
from lora_detox.export.reload import logits_in_fresh_process, logits_of
from lora_detox.machine import resolve_device
from lora_detox.metrics import names
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan, read_config, resolve_dtype
from lora_detox.report.card import CardFacts, model_card
from lora_detox.report.jsonl import write_json_atomic, write_text_atomic
from lora_detox.settings import Settings, settings_yaml

PROBES = (
    "The meeting was moved to Tuesday because the room was taken.",
    "Person1: You never listen to me. Person2: That is not true, and you know it.",
    "I think that people who say this",
)
"""Texts whose logits are compared; any text serves, as both sides read the same ids."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""How far the logits of the same weights may differ between two processes."""
_SHOWN = (
    "task.name",
    "policy.dtype",
    "quantization.type",
    "adapter.rank",
    "adapter.alpha",
    "adapter.scope",
    "algorithm.name",
    "algorithm.iterations",
    "algorithm.rollout_batch_size",
    "algorithm.ppo_epochs",
    "algorithm.learning_rate",
    "algorithm.kl_coef",
    "algorithm.kl_target",
    "generation.response_tokens",
    "seed",
)


def run(settings: Settings) -> tuple[float, ...]:
    """Write, reload in a fresh process, compare, and only then push and say that it is done.

    Args:
        settings: composed and checked; `run` names the finished run.

    Returns:
        The largest difference in logits between the run and what was exported.

    Raises:
        ExportError: what was written does not read back as it was, or the hub refused it.
    """
    prepare_process(settings.threads)
    console, export = Console(highlight=False), settings.export
    if export.repo_id and not export.dry_run:
        check_token()
    source = read_run(Path(str(settings.run)).expanduser())
    target = Path(export.path).expanduser() if export.path else source.folder / "export"
    plan = _plan(source, settings)
    config = read_config(plan, "run")
    commit = _commit_read(plan)
    revision = export.base_revision or plan.revision or (None if export.base_model else commit)
    base = export.base_model or source.base
    rows, expected = _expected_logits(plan)
    written = _temporary(target)
    request = {
        "base": base,
        "revision": revision,
        "adapter": str(written),
        "encoder_decoder": source.encoder_decoder,
        "dtype": str(resolve_dtype(plan, config)).removeprefix("torch."),
        "device": str(resolve_device(settings.device)),
        "threads": settings.threads,
        "rows": rows,
    }
    try:
        _write_adapter(source, written, base, revision)
        difference = _compare(expected, request, resolve_dtype(plan, config))
        merged = merge(request, written / MERGED, expected, source, plan) if export.merge else None
        facts = card_facts(source, settings, base, revision, target, merged)
        write_text_atomic(written / "README.md", model_card(facts, source.summary, names.METRICS))
        _put_in_place(written, target)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    pushed = _send(target, settings, console)
    _record(settings, target, difference, merged, pushed)
    _say(console, target, difference, merged, pushed)
    return (difference,)


def _plan(source: FinishedRun, settings: Settings) -> BackbonePlan:
    """The run's base, unquantized: what was written must be right without bitsandbytes."""
    policy = source.config["policy"]
    return BackbonePlan(
        path=source.base,
        revision=policy.get("revision"),
        adapter=str(source.adapter),
        frozen_reference=False,
        dtype=policy.get("dtype", "auto"),
        device=settings.device,
        allow_fp16_t5=policy.get("allow_fp16_t5", False),
    )


def _expected_logits(plan: BackbonePlan) -> tuple[list[list[int]], list[Tensor]]:
    """Token ids of the probes, and what the run's adapter makes of them through this package."""
    policy = load_policy(plan, NO_ADAPTER)
    rows = [list(policy.tokenizer(text)["input_ids"]) for text in PROBES]
    logits = logits_of(policy.model, rows)
    del policy
    gc.collect()
    return rows, logits


def _temporary(target: Path) -> Path:
    written = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    return written


def _commit_read(plan: BackbonePlan) -> str | None:
    """The hub commit that the cache holds of a model; None for a folder."""
    if Path(plan.path).expanduser().is_dir():
        return None
    file = cached_file(plan.path, "config.json", revision=plan.revision)
    commit: str | None = extract_commit_hash(file, None)
    return commit


def _write_adapter(source: FinishedRun, written: Path, base: str, revision: str | None) -> None:
    """The adapter alone: weights, and PEFT's description with the base's id and revision."""
    shutil.copyfile(
        source.adapter / "adapter_model.safetensors", written / "adapter_model.safetensors"
    )
    described = {**source.adapter_config, "base_model_name_or_path": base, "revision": revision}
    described["inference_mode"] = True
    text = json.dumps(described, indent=2, sort_keys=True)
    write_text_atomic(written / "adapter_config.json", text + "\n")


def _compare(expected: list[Tensor], request: dict[str, Any], dtype: torch.dtype) -> float:
    found = logits_in_fresh_process(request)
    change = logit_change(expected, found)
    if not change["maximum"] <= TOLERANCE[dtype]:
        raise ExportError(
            f"the exported adapter, loaded in a fresh process on {request['base']}, gives logits "
            f"that differ by {change['maximum']:.3g} from those of the run, want at most "
            f"{TOLERANCE[dtype]:g}; is export.base_model the base that the run was trained on?"
        )
    return float(change["maximum"])


def card_facts(
    source: FinishedRun,
    settings: Settings,
    base: str,
    revision: str | None,
    target: Path,
    merged: dict[str, Any] | None,
) -> CardFacts:
    """What the card says; folders of this machine appear by their last name only."""
    data = str(source.config["data"]["path"])
    shown = []
    for key in _SHOWN:
        value: Any = source.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            shown.append((key, str(value)))
    return CardFacts(
        name=settings.export.repo_id or target.resolve().parent.name,
        base=base if _on_hub(base) else Path(base).name,
        base_revision=revision,
        base_on_hub=_on_hub(base),
        encoder_decoder=source.encoder_decoder,
        data=data if _on_hub(data) or data.startswith("embedded:") else Path(data).name,
        data_on_hub=_on_hub(data),
        license=settings.export.license,
        settings=shown,
        merged=merged,
    )


def _on_hub(path: str) -> bool:
    """Whether a path is a hub id rather than something of this machine."""
    files = (".jsonl", ".json", ".csv", ".parquet", ".gz")
    local = path.startswith((".", "/", "~", "embedded:")) or Path(path).exists()
    return not local and not path.lower().endswith(files)


def _put_in_place(written: Path, target: Path) -> None:
    """Replace an earlier export in one step; `check_export` saw that it is one."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    written.rename(target)


def _send(target: Path, settings: Settings, console: Console) -> dict[str, str] | None:
    export = settings.export
    if export.repo_id is None:
        return None
    if export.dry_run:
        where = f"{export.repo_id}, branch {export.revision or 'the default one'}"
        console.print(f"dry run: would send to {where}:", markup=False, soft_wrap=True)
        for name, size in folder_files(target):
            console.print(f"  {size:>12,} bytes  {name}", markup=False, soft_wrap=True)
        return None
    return push_folder(target, export)


def _record(
    settings: Settings,
    target: Path,
    difference: float,
    merged: dict[str, Any] | None,
    pushed: dict[str, str] | None,
) -> None:
    run_dir = Path(settings.run_dir)
    summary: dict[str, Any] = {
        "schema": 1,
        "stage": "export",
        "run": settings.run,
        "export": str(target),
        "files": dict(folder_files(target)),
        "logit_difference": difference,
        "versions": versions(),
    }
    optional = {"merged": merged, "pushed": pushed}
    summary |= {key: value for key, value in optional.items() if value is not None}
    write_text_atomic(run_dir / "config.yaml", settings_yaml(settings))
    write_json_atomic(run_dir / "summary.json", summary)


def _say(
    console: Console,
    target: Path,
    difference: float,
    merged: dict[str, Any] | None,
    pushed: dict[str, str] | None,
) -> None:
    lines = [
        f"export   {target}",
        f"checked  reloaded in a fresh process with plain PEFT: logits differ by {difference:.2g}",
    ]
    if merged:
        lines.append(
            f"merged   {target / MERGED}: logits changed by {merged['mean']:.2g} in the mean, "
            f"{merged['maximum']:.2g} at most; same likeliest token at "
            f"{100 * merged['same_top']:.1f} %"
        )
        if "from_quantized" in merged:
            lines.append(
                f"         against the quantized model that was trained: "
                f"{merged['from_quantized']['mean']:.2g} in the mean"
            )
    if pushed:
        lines.append(f"pushed   {pushed['repo']} at {pushed['commit']}")
    for line in [*lines, "done"]:
        console.print(line, markup=False, soft_wrap=True)
