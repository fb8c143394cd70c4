"""A run's adapter as a folder of its own, and whether plain PEFT reads it back as it was."""

import gc
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor
from transformers.utils.hub import cached_file, extract_commit_hash

from lora_detox.errors import ExportError, SettingsError
from lora_detox.export.finished_run import FinishedRun
from lora_detox.export.merge import logit_change
from lora_detox.export.reload import logits_in_fresh_process, logits_of
from lora_detox.ownership import ownership, put_files
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.adapter_kinds import changes_base
from lora_detox.policy.loading import load_policy
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.policy.strength import at_strength, export_refusal
from lora_detox.positions import position_limit
from lora_detox.prompts.templates import apply_template, parse_template
from lora_detox.report.jsonl import write_text_atomic
from lora_detox.settings import Settings

PROBES = (
    "The meeting was moved to Tuesday because the room was taken.",
    "Person1: You never listen to me. Person2: That is not true, and you know it.",
    "I think that people who say this",
)
"""Texts whose logits are compared; any text serves, as both sides read the same ids."""
PROBE_TOKENS = 64
"""Longest probe, special tokens included."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""How far the logits of the same weights may differ between two processes."""


def unquantized_base(source: FinishedRun, settings: Settings) -> BackbonePlan:
    """The run's base, unquantized: what was written must be right without bitsandbytes."""
    policy, task = source.config["policy"], source.config["task"]
    return BackbonePlan(
        path=source.base,
        revision=policy.get("revision"),
        adapter=str(source.adapter),
        frozen_reference=False,
        dtype=policy.get("dtype", "auto"),
        device=settings.device,
        allow_fp16_t5=policy.get("allow_fp16_t5", False),
        chat=task.get("chat", False),
        system=task.get("system"),
        trust_remote_code=bool(
            settings.policy.trust_remote_code and policy.get("trust_remote_code", False)
        ),
    )


def check_strength(source: FinishedRun, strength: float) -> None:
    """The run's adapter can be written at a strength, found out before any weight loads.

    Args:
        source: the run.
        strength: of `export.strength`.

    Raises:
        SettingsError: with the reason.
    """
    reason = export_refusal(PeftConfig.from_pretrained(str(source.adapter)))
    if strength != 1 and reason is not None:
        raise SettingsError(
            f"export.strength: got {strength:g}, but the adapter of {source.folder} can only be "
            f"exported at strength 1: {reason} (docs/adapters.md)"
        )


def check_base(policy: LoraPolicy, source: FinishedRun) -> None:
    """The base is the one that the run was trained on, by its checksum where that can be compared.

    Args:
        policy: the run's base with its adapter.
        source: the run; older ones did not write down the dtype, without which none is compared.

    Raises:
        ExportError: other weights lie in the base's folder now.
    """
    trained = source.summary.get("parameters") or {}
    dtype = str(policy.backbone.dtype).removeprefix("torch.")
    same_form = source.quantization == "none" and trained.get("base_dtype") == dtype
    if not same_form or changes_base(policy.model.peft_config["default"]):
        return
    if policy.base_checksum() != trained.get("base_checksum"):
        raise ExportError(
            f"run: the weights of {source.base} are others than when {source.folder} was trained "
            "(checksum); the adapter belongs to those of then: put them back"
        )


def expected_logits(
    source: FinishedRun, plan: BackbonePlan, strength: float, folder: Path
) -> tuple[list[list[int]], list[Tensor]]:
    """What the run's adapter makes of the probes through this package, at a strength.

    Args:
        source: the run.
        plan: the run's base with its adapter.
        strength: of the adapter; at any but 1 its weights are written down as they are then.
        folder: where to.

    Returns:
        Token ids and logits of each probe.

    Raises:
        ExportError: see `check_base`.
    """
    policy = load_policy(plan, NO_ADAPTER)
    check_base(policy, source)
    most = min(PROBE_TOKENS, position_limit(policy.backbone.config) or PROBE_TOKENS)
    rows = [
        apply_template(
            text,
            policy.tokenizer,
            template=parse_template("{prompt}"),
            max_query_tokens=most,
            add_special_tokens=policy.family.add_special_tokens,
        ).ids
        for text in PROBES
    ]
    with at_strength(policy, strength):
        logits = logits_of(policy.model, rows)
        if strength != 1:
            policy.model.save_pretrained(folder, selected_adapters=["default"])
    del policy
    gc.collect()
    return rows, logits


def temporary_folder(target: Path) -> Path:
    """A new folder beside the target, of this process alone."""
    place = target.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))


def cached_commit(plan: BackbonePlan) -> str | None:
    """The hub commit that the cache holds of a model; None for a folder."""
    if Path(plan.path).expanduser().is_dir():
        return None
    file = cached_file(plan.path, "config.json", revision=plan.revision)
    commit: str | None = extract_commit_hash(file, None)
    return commit


def write_adapter(source: FinishedRun, written: Path, base: str, revision: str | None) -> None:
    """The adapter alone: weights, and PEFT's description with the base's id and revision.

    Args:
        source: the run.
        written: where to; weights of another strength lie there already.
        base: id or folder of the base.
        revision: of the base.
    """
    weights = written / "adapter_model.safetensors"
    if not weights.exists():
        shutil.copyfile(source.adapter / "adapter_model.safetensors", weights)
    described = {**source.adapter_config, "base_model_name_or_path": base, "revision": revision}
    described["inference_mode"] = True
    text = json.dumps(described, indent=2, sort_keys=True)
    write_text_atomic(written / "adapter_config.json", text + "\n")


def check_reloads(expected: list[Tensor], request: dict[str, Any], dtype: torch.dtype) -> float:
    """The largest difference in logits after a reload in a fresh process; too large is an error."""
    reloaded = logits_in_fresh_process(request)
    change = logit_change(expected, reloaded)
    if not change["maximum"] <= TOLERANCE[dtype]:
        raise ExportError(
            f"the exported adapter, loaded in a fresh process on {request['base']}, gives logits "
            f"that differ by {change['maximum']:.3g} from those of the run, want at most "
            f"{TOLERANCE[dtype]:g}; is export.base_model the base that the run was trained on?"
        )
    return float(change["maximum"])


def put_in_place(written: Path, target: Path, *, overwrite: bool) -> None:
    """Replace the files of an earlier export; what else lies there stays as it is.

    Args:
        written: the new export.
        target: where it belongs.
        overwrite: whether other things may lie there.

    Raises:
        ExportError: something was put there since the settings were checked, or cannot be replaced.
    """
    others = ownership(target).others
    if others and not overwrite:
        raise ExportError(
            f"export.path: {target} now holds {others[0]}, which no export wrote; name another "
            "folder, or export.overwrite=true"
        )
    try:
        put_files(written, target)
    except OSError as error:
        raise ExportError(f"export.path: cannot write into {target}: {error}") from error
