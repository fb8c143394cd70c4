"""From what `from_pretrained` was given to a backbone; files of a folder or hub repository."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from safetensors import safe_open
from torch import Tensor
from transformers import BitsAndBytesConfig

from lora_detox.classic.advice import caution
from lora_detox.errors import DetoxError
from lora_detox.hub_ids import is_hub_id
from lora_detox.model_files import wants_code, weight_fault, weight_files
from lora_detox.policy.adapter_kinds import refusal


class UnsafeModelError(DetoxError, ValueError):
    """A model folder that would run code, or whose weights are a pickle or are cut."""


_KBIT = ("use_gradient_checkpointing", "gradient_checkpointing_kwargs")


def load_backbone(auto: Any, source: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A model, maybe with an adapter, from a path, a hub id or a model.

    Args:
        auto: the Transformers class that loads the family.
        source: folder, hub id, PreTrainedModel or PeftModel.
        args: for `auto.from_pretrained`.
        options: keywords of `from_pretrained`; those that make no sense for `source` are ignored.

    Returns:
        A PreTrainedModel or a PeftModel.

    Raises:
        ValueError: `peft_config` is none, or an adapter is of a kind that does not train here.
    """
    options = dict(options)
    peft_config = options.pop("peft_config", None)
    trainable = bool(options.pop("is_trainable", False))
    kbit = {name: options.pop(name) for name in _KBIT if name in options}
    if peft_config is not None and not isinstance(peft_config, PeftConfig):
        raise ValueError(
            f"peft_config must be a peft.PeftConfig, got {type(peft_config)}; give LoraConfig(...)"
        )
    model = _load(auto, source, args, options, trainable) if isinstance(source, str) else source
    if peft_config is not None and not isinstance(model, PeftModel):
        if getattr(model, "is_quantized", False):
            known = inspect.signature(prepare_model_for_kbit_training).parameters
            kbit = {k: v for k, v in kbit.items() if k in known}
            model = prepare_model_for_kbit_training(model, **kbit)
        model = get_peft_model(model, peft_config)
    if isinstance(model, PeftModel):
        stored = isinstance(source, str) and peft_config is None
        reason = refusal(model.active_peft_config, stored=stored)
        if reason is not None:
            raise ValueError(
                f"PPO cannot train this adapter: {reason}; use LoRA: peft_config=LoraConfig(...)"
            )
    return model


def _load(
    auto: Any, source: str, args: tuple[Any, ...], options: dict[str, Any], trainable: bool
) -> Any:
    """A model by path or hub id; where that is an adapter, on the base model that it names."""
    adapter = find_file(source, "adapter_config.json", options.get("token"))
    options = translate(options)
    if options["trust_remote_code"]:
        caution(f"from_pretrained: trust_remote_code=True runs the Python files of {source}")
    if adapter is None:
        return _plain_model(auto, source, args, options)
    folder = str(adapter.parent)
    stored = PeftConfig.from_pretrained(folder)
    refuse_foreign_modules(stored, folder)
    base = _plain_model(auto, str(stored.base_model_name_or_path), args, options)
    refuse_broken([adapter.parent / "adapter_model.safetensors"])
    return PeftModel.from_pretrained(base, folder, is_trainable=trainable)


def _plain_model(auto: Any, source: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    refuse_broken(weight_files(source, options.get("revision")))
    try:
        return auto.from_pretrained(source, *args, **options)
    except (UnpicklingError, ValueError) as error:
        if wants_code(error):
            raise UnsafeModelError(
                f"from_pretrained: {source} needs Python files of its own folder, and none are "
                "run; want a model that Transformers knows, or, after reading them, "
                "trust_remote_code=True"
            ) from error
        if isinstance(error, UnpicklingError) or "weights_only" in str(error).lower():
            raise UnsafeModelError(
                f"from_pretrained: the weights of {source} are a pickle with more than tensors in "
                "it, which can run code and is not opened; save it as safetensors with the program "
                "that wrote it"
            ) from error
        raise


def refuse_broken(files: Iterable[Path]) -> None:
    """Name a file that is no whole safetensors file; one that is not there is no fault here."""
    if fault := weight_fault(file for file in files if file.exists()):
        raise UnsafeModelError(f"from_pretrained: {fault}; want the folder as it was saved")


def refuse_foreign_modules(stored: PeftConfig, folder: str) -> None:
    """PEFT imports the module that an adapter names for Megatron, whichever it is."""
    if getattr(stored, "megatron_config", None):
        raise UnsafeModelError(
            f"from_pretrained: the adapter_config.json of {folder} has a megatron_config, for "
            "which PEFT would import a module that the file names; remove it there"
        )


def translate(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of Transformers 4 as Transformers 5 takes them.

    Without the program's word no Python file of a folder is run. Without a dtype weights load in
    fp32 (bf16 around quantized ones), as they used to, and not in the dtype of the file.

    Args:
        options: `torch_dtype`, `load_in_8bit`, `load_in_4bit`, `use_auth_token` and any others.

    Returns:
        Keywords for `from_pretrained`.
    """
    new = dict(options)
    new["trust_remote_code"] = bool(new.get("trust_remote_code"))  # None would ask
    old_dtype, old_token = new.pop("torch_dtype", None), new.pop("use_auth_token", None)
    if old_token is not None:
        new.setdefault("token", old_token)
    eight, four = bool(new.pop("load_in_8bit", False)), bool(new.pop("load_in_4bit", False))
    if (eight or four) and new.get("quantization_config") is None:
        new["quantization_config"] = BitsAndBytesConfig(load_in_8bit=eight, load_in_4bit=four)
    quantized = new.get("quantization_config") is not None
    default = torch.bfloat16 if quantized else torch.float32
    if new.get("dtype") is None:
        new["dtype"] = old_dtype if old_dtype is not None else default
    if quantized:
        new.setdefault("device_map", {"": PartialState().device})
    return new


def find_file(source: str, name: str, token: Any = None) -> Path | None:
    """A file of a folder or hub repository, None if it has none."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if not is_hub_id(source):
        return None
    try:
        return Path(hf_hub_download(source, name, token=token))
    except (EntryNotFoundError, HFValidationError, RepositoryNotFoundError):
        return None


def read_tensors(file: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Those tensors of a safetensors file whose names begin so."""
    with safe_open(str(file), framework="pt") as opened:
        return {k: opened.get_tensor(k) for k in opened.keys() if k.startswith(prefixes)}  # noqa: SIM118
