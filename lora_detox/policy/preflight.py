"""Everything about a policy that can be known to be wrong before its weights load."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftConfig
from transformers import AutoConfig, PretrainedConfig

from lora_detox.errors import SettingsError
from lora_detox.hub import HubError, hub_files, hub_reason
from lora_detox.machine import DTYPES, gains_by_bf16, has_fast_bf16, resolve_device
from lora_detox.model_files import (
    foreign_kernel,
    forget_code,
    wants_code,
    weight_fault,
    weight_files,
)
from lora_detox.policy.adapter import AdapterPlan, empty_model, is_named, lora_config
from lora_detox.policy.anatomy import text_config
from lora_detox.policy.stored_adapter import check_tensors, check_use, read_stored
from lora_detox.policy.token_ids import complete_ids, generation_defaults


@dataclass(frozen=True, kw_only=True)
class BackbonePlan:
    """Which backbone, in which numbers, where.

    Attributes:
        path: hub id or local folder.
        revision: hub revision (branch, tag or commit), None for the default branch.
        adapter: folder or hub id of an adapter to start from, None for a fresh one.
        frozen_reference: keep a frozen copy of that adapter as the reference policy; False takes
            the bare backbone instead, for evaluation.
        dtype: "float32", "bfloat16", "float16", or "auto" (see `resolve_dtype`).
        quantization: "none", "int8" (LLM.int8) or "nf4" (QLoRA).
        int8_threshold: outlier threshold of LLM.int8.
        double_quant: quantize the nf4 constants too.
        device: "auto", "cpu", "cuda", "cuda:1".
        gradient_checkpointing: recompute activations in the backward pass.
        sharded: several processes keep a share of the layers' weights each.
        allow_fp16_t5: load T5 in fp16 although its activations overflow.
        value_head: whether a value head learns beside the adapter.
        chat: prompts are messages of the tokenizer's chat template, whose end ends a response.
        system: system message of the chat.
        trust_remote_code: run the Python files of the model's folder.
    """

    path: str
    revision: str | None = None
    adapter: str | None = None
    frozen_reference: bool = True
    dtype: str = "auto"
    quantization: str = "none"
    int8_threshold: float = 6.0
    double_quant: bool = True
    device: str = "auto"
    gradient_checkpointing: bool = False
    sharded: bool = False
    allow_fp16_t5: bool = False
    value_head: bool = True
    chat: bool = False
    system: str | None = None
    trust_remote_code: bool = False


def resolve_dtype(plan: BackbonePlan, config: PretrainedConfig) -> torch.dtype:
    """The dtype of the frozen weights; never the checkpoint's own by accident.

    "auto" is bfloat16 where it is faster (`machine.gains_by_bf16`), and for quantized backbones but
    on CPUs without bf16 units; float32 elsewhere.

    Args:
        plan: as the settings have it.
        config: of the model.

    Returns:
        A torch dtype.

    Raises:
        SettingsError: fp16 with T5, whose feed-forward activations exceed 65504.
    """
    if plan.dtype == "auto":
        device = resolve_device(plan.device)
        quantized = plan.quantization != "none" and (device.type != "cpu" or has_fast_bf16())
        faster = quantized or gains_by_bf16(device, text_config(config).hidden_size)
        return torch.bfloat16 if faster else torch.float32
    if (
        plan.dtype == "float16"
        and config.model_type in {"t5", "mt5", "umt5"}
        and not plan.allow_fp16_t5
    ):
        raise SettingsError(
            "policy.dtype=float16 with a T5 model: its activations overflow fp16 and become NaN; "
            "use policy.dtype=bfloat16 or float32 (policy.allow_fp16_t5=true insists)"
        )
    return DTYPES[plan.dtype]


def read_config(plan: BackbonePlan, key: str = "policy.path") -> PretrainedConfig:
    """The model's configuration, with nothing random in it; the first thing that is read.

    Args:
        plan: where it is.
        key: setting that named it, for messages.

    Returns:
        The configuration; no weight has been read.

    Raises:
        SettingsError: no such folder, the hub cannot be reached or does not have it, or it wants
            to run code that is not trusted.
    """
    looks_local = plan.path.startswith((".", "/", "~")) or Path(plan.path).exists()
    if looks_local and not (Path(plan.path).expanduser() / "config.json").is_file():
        raise SettingsError(
            f"{key}: {plan.path} is no model folder (it has no config.json); "
            "want a folder written by save_pretrained, or a hub id such as google/flan-t5-base"
        )
    if not looks_local:
        _check_hub(plan.path, plan.revision, key)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            os.path.expanduser(plan.path),
            revision=plan.revision,
            trust_remote_code=plan.trust_remote_code,
        )
    except StrictDataclassError as error:
        raise SettingsError(
            f"{key}: {plan.path} has a config.json with a value of the wrong type "
            f"({' '.join(str(error).split())}); correct it there"
        ) from error
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        if wants_code(error) and not plan.trust_remote_code:
            raise code_refused(plan.path, key) from error
        if looks_local:
            raise SettingsError(
                f"{key}: {plan.path} is no model folder ({_first_line(error)}); want one "
                "written by save_pretrained"
            ) from error
        reason = hub_reason(error, plan.path, plan.revision)
        raise _hub_error(plan.path, key, reason) from error
    if not plan.trust_remote_code:
        forget_code(config)
    if kernel := foreign_kernel(config):
        raise SettingsError(
            f"{key}: the config.json of {plan.path} asks for the attention kernel {kernel}, which "
            "is compiled code of the hub; remove attn_implementation there"
        )
    complete_ids(config, generation_defaults(plan.path, plan.revision), key)
    _silence(config)
    return config


def code_refused(path: str, key: str = "policy.path") -> SettingsError:
    """What is said of a model that is code rather than numbers."""
    return SettingsError(
        f"{key}: {path} needs Python files of its own folder (auto_map in its config.json or "
        "tokenizer_config.json), and no code of a model folder is run; want a model that "
        "Transformers knows. To run them with all of your rights, read them first and say "
        "policy.trust_remote_code=true"
    )


def _silence(config: PretrainedConfig) -> None:
    """Nothing random in training passes: dropout, dropped layers and jitter, nested parts too."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            _silence(value)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            continue
        elif name == "router_jitter_noise" and config.model_type == "phimoe":
            continue  # despite its name a threshold, with which the model always chooses experts
        elif "drop" in name or "jitter" in name:
            setattr(config, name, type(value)(0))


def _check_hub(path: str, revision: str | None, key: str) -> None:
    """The hub has it, with weights that are loaded; offline `from_pretrained` finds out."""
    try:
        files = hub_files(path, revision)
    except HubError as error:
        raise _hub_error(path, key, str(error)) from error
    if files and not any(name.endswith(".safetensors") for name in files):
        raise SettingsError(
            f"{key}: the hub's {path!r} has no safetensors weights at revision "
            f"{revision or 'main'}, and pickled ones are not loaded; many such models have a "
            "conversion waiting as a pull request: policy.revision=refs/pr/NUMBER"
        )


def _hub_error(path: str, key: str, reason: str) -> SettingsError:
    return SettingsError(
        f"{key}: cannot read {path!r} from the hub ({reason}). Without "
        f"a network give a local folder: {key}=/path/to/folder (downloaded once with "
        f"`hf download {path}`), or set HF_HUB_OFFLINE=1 to use what the cache holds"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_backbone(plan: BackbonePlan, adapter: AdapterPlan) -> PretrainedConfig:
    """Everything that can be known to be wrong before weights load.

    Args:
        plan: the backbone.
        adapter: the adapter.

    Returns:
        The model's configuration.

    Raises:
        SettingsError: see `read_config`, `resolve_dtype` and `lora_config`.
    """
    config = read_config(plan)
    resolve_dtype(plan, config)
    _check_model_folder(plan.path)
    if plan.adapter is None:
        lora_config(adapter, config, quantized=plan.quantization != "none")
    else:
        check_adapter(plan, plan.adapter, config)
    return config


def _check_model_folder(path: str) -> None:
    """Weights and tokenizer are there; Transformers makes up a tokenizer where it finds none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return
    for what, patterns in (
        ("weights (*.safetensors)", ("*.safetensors",)),
        ("tokenizer (tokenizer.json)", ("tokenizer*", "vocab*", "*.model")),
    ):
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise SettingsError(
                f"policy.path: {path} has no {what}; want a folder in which save_pretrained of "
                "both model and tokenizer wrote"
            )
    if fault := weight_fault(weight_files(path)):
        raise SettingsError(f"policy.path: {fault}; want the folder as save_pretrained wrote it")


def _check_adapter_folder(path: str) -> None:
    folder = Path(path).expanduser()
    if path.startswith((".", "/", "~")) or folder.exists():
        missing = [
            n
            for n in ("adapter_config.json", "adapter_model.safetensors")
            if not (folder / n).is_file()
        ]
        if missing:
            raise SettingsError(
                f"policy.adapter: {path} has no {' and no '.join(missing)}; want a PEFT adapter "
                "folder, as a run's adapter/ is"
            )
        if fault := weight_fault([folder / "adapter_model.safetensors"]):
            raise SettingsError(f"policy.adapter: {fault}; want the adapter as PEFT wrote it")


def check_adapter(plan: BackbonePlan, path: str, config: PretrainedConfig) -> PeftConfig:
    """A stored adapter trains here, and its modules and tensors are those of the model.

    Args:
        plan: the backbone.
        path: folder or hub id of the adapter.
        config: of the model.

    Returns:
        PEFT's description of the adapter.

    Raises:
        SettingsError: what does not train or fit, with the reason.
    """
    key = "policy.adapter"
    _check_adapter_folder(path)
    if not Path(path).expanduser().is_dir():
        _check_hub(path, None, key)
    try:
        stored = read_stored(path)
    except OSError as error:
        raise _hub_error(path, key, hub_reason(error, path)) from error
    targets = getattr(stored, "target_modules", None)
    names = [name for name, _ in empty_model(config).named_modules()]
    if isinstance(targets, set | list) and not any(is_named(n, t) for n in names for t in targets):
        raise SettingsError(
            f"{key}: {path} sits on {', '.join(sorted(targets))}, of which this "
            f"{config.model_type} model has none; want an adapter that was made for it"
        )
    dtype = resolve_dtype(plan, config) if plan.frozen_reference else torch.float32
    check_use(path, stored, config, dtype, quantized=plan.quantization != "none")
    check_tensors(path, stored, config)
    return stored
