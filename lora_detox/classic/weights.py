"""From what `from_pretrained` was given to a backbone and the value head's weights."""

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from peft import (
    PeftConfig,
    PeftModel,
    PromptLearningConfig,
    get_peft_model,
    prepare_model_for_kbit_training,
)
from safetensors import safe_open
from torch import Tensor
from transformers import BitsAndBytesConfig

from lora_detox.policy.value_head import FILE_NAME

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"
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
        ValueError: `peft_config` is none, or an adapter is of the prompt-learning kind.
    """
    options = dict(options)
    peft_config = options.pop("peft_config", None)
    trainable = bool(options.pop("is_trainable", False))
    kbit = {name: options.pop(name) for name in _KBIT if name in options}
    if peft_config is not None and not isinstance(peft_config, PeftConfig):
        raise ValueError(f"peft_config must be a peft.PeftConfig, got {type(peft_config)}")
    model = source
    if isinstance(source, str):
        token = options.get("token")
        options = translate(options)
        adapter = find_file(source, "adapter_config.json", token)
        if adapter is None:
            model = auto.from_pretrained(source, *args, **options)
        else:
            folder = str(adapter.parent)
            base = PeftConfig.from_pretrained(folder).base_model_name_or_path
            model = PeftModel.from_pretrained(
                auto.from_pretrained(base, *args, **options), folder, is_trainable=trainable
            )
    if peft_config is not None and not isinstance(model, PeftModel):
        if getattr(model, "is_quantized", False):
            known = inspect.signature(prepare_model_for_kbit_training).parameters
            kbit = {k: v for k, v in kbit.items() if k in known}
            model = prepare_model_for_kbit_training(model, **kbit)
        model = get_peft_model(model, peft_config)
    if isinstance(model, PeftModel) and isinstance(model.active_peft_config, PromptLearningConfig):
        raise ValueError("prompt learning is not supported for PPO; use LoRA")
    return model


def translate(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of Transformers 4 as Transformers 5 takes them.

    Without a dtype weights load in fp32 (bf16 around quantized ones), as they used to, and not in
    the dtype of the file.

    Args:
        options: `torch_dtype`, `load_in_8bit`, `load_in_4bit`, `use_auth_token` and any others.

    Returns:
        Keywords for `from_pretrained`.
    """
    new = dict(options)
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


def read_value_head(source: str, token: Any = None) -> dict[str, Tensor]:
    """Weights of `ValueHead` in a folder or hub repository; empty where there are none.

    Args:
        source: folder or hub id.
        token: of the hub.

    Returns:
        `summary.weight` and `summary.bias`.

    Raises:
        ValueError: an old `.bin` file that holds more than tensors.
    """
    beside = find_file(source, FILE_NAME, token)
    if beside is not None:
        state = read_tensors(beside, ("linear.",))
        return {name.replace("linear.", "summary."): tensor for name, tensor in state.items()}
    files: Iterable[str] = (WEIGHTS,)
    index = find_file(source, INDEX, token)
    if index is not None:
        places = json.loads(index.read_text())["weight_map"]
        files = sorted({file for name, file in places.items() if name.startswith("v_head.")})
    state = {}
    for name in files:
        file = find_file(source, name, token)
        if file is not None:
            state.update(read_tensors(file, ("v_head.",)))
    old = None if state else find_file(source, OLD_WEIGHTS, token)
    if old is not None:
        state = _old_tensors(old)
    return {name.removeprefix("v_head."): tensor for name, tensor in state.items()}


def read_tensors(file: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Those tensors of a safetensors file whose names begin so."""
    with safe_open(str(file), framework="pt") as opened:
        return {k: opened.get_tensor(k) for k in opened.keys() if k.startswith(prefixes)}  # noqa: SIM118


def _old_tensors(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{file} holds more than tensors and is not opened, as a pickle can run code; save it "
            "as safetensors with the program that wrote it"
        ) from error
    return {name: tensor for name, tensor in state.items() if name.startswith("v_head.")}


def find_file(source: str, name: str, token: Any = None) -> Path | None:
    """A file of a folder or hub repository, None if it has none."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    try:
        return Path(hf_hub_download(source, name, token=token))
    except (EntryNotFoundError, HFValidationError, RepositoryNotFoundError):
        return None
