"""The heads on a backbone and their files: the value head, and the head of a reward adapter."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PretrainedConfig

from lora_detox.classic.weights import (
    UnsafeModelError,
    find_file,
    read_tensors,
    refuse_broken,
    refuse_foreign_modules,
)
from lora_detox.json_text import parse_json
from lora_detox.policy.anatomy import state_size
from lora_detox.policy.value_head import FILE_NAME

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OLD_WEIGHTS = "pytorch_model.bin"


class ValueHead(nn.Module):
    """A scalar for every state, as old programs and their files know it.

    Unlike the engine's head it is randomly initialised, as files expect.

    Args:
        config: of the wrapped model; its `summary_dropout_prob` goes before the keyword's.
        summary_dropout_prob: dropout before the linear map; off outside training mode, and the
            trainer never leaves it on.
        v_head_init_strategy: None for torch's default, "normal" for mean 0.
        v_head_initializer_range: standard deviation with "normal".
    """

    def __init__(
        self,
        config: PretrainedConfig,
        summary_dropout_prob: float = 0.1,
        v_head_init_strategy: str | None = None,
        v_head_initializer_range: float = 0.2,
    ) -> None:
        super().__init__()
        dropout = getattr(config, "summary_dropout_prob", summary_dropout_prob)
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.summary = nn.Linear(state_size(config), 1)
        if v_head_init_strategy == "normal":
            nn.init.normal_(self.summary.weight, mean=0.0, std=v_head_initializer_range)
            nn.init.zeros_(self.summary.bias)
        elif v_head_init_strategy is not None:
            raise ValueError(
                f"v_head_init_strategy is {v_head_init_strategy!r}; give 'normal', or None for "
                "torch's own"
            )

    def forward(self, hidden: Tensor) -> Tensor:
        """Values [..., 1] of states [..., H], in the head's own dtype (fp32)."""
        values: Tensor = self.summary(self.dropout(hidden.to(self.summary.weight.dtype)))
        return values


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
        refuse_broken([beside])
        state = read_tensors(beside, ("linear.",))
        return {name.replace("linear.", "summary."): tensor for name, tensor in state.items()}
    files: Iterable[str] = (WEIGHTS,)
    index = find_file(source, INDEX, token)
    if index is not None:
        places = parse_json(index.read_text())["weight_map"]
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


def _old_tensors(file: Path) -> dict[str, Tensor]:
    """The value head of a `.bin` file that holds tensors alone."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UnsafeModelError(
            f"{file} holds more than tensors and is not opened, as a pickle can run code; save it "
            "as safetensors with the program that wrote it"
        ) from error
    return {name: tensor for name, tensor in state.items() if name.startswith("v_head.")}


def load_score_head(model: Any, adapter: Any, name: str) -> nn.Module:
    """Add a frozen sequence-classification adapter to a PEFT model and read its score head.

    Args:
        model: the policy; must be a PEFT model.
        adapter: folder or hub id of an adapter trained with task type SEQ_CLS.
        name: of the adapter in the model.

    Returns:
        The frozen head, a linear map to the labels.

    Raises:
        ValueError: no PEFT model, no path, or an adapter without a score head.
    """
    if not isinstance(model, PeftModel):
        raise ValueError(
            f"reward_adapter needs a PEFT model, got {type(model)}; "
            "give peft_config=LoraConfig(...)"
        )
    if not isinstance(adapter, str | Path):
        raise ValueError(f"reward_adapter is {type(adapter)}; give a folder or a hub id")
    file = find_file(str(adapter), "adapter_model.safetensors")
    if file is None:
        raise ValueError(
            f"reward_adapter: {adapter} has no adapter_model.safetensors; give the folder or hub "
            "id that PeftModel.save_pretrained wrote"
        )
    refuse_broken([file])
    refuse_foreign_modules(PeftConfig.from_pretrained(str(file.parent)), str(adapter))
    tensors = read_tensors(file, ("",))
    weights = [k for k in tensors if ".score." in k and k.endswith("weight")]
    if len(weights) != 1:
        raise ValueError(
            f"reward_adapter: {adapter} has {len(weights)} score heads and must have one; train it "
            "with LoraConfig(task_type='SEQ_CLS')"
        )
    weight = tensors[weights[0]]
    bias = tensors.get(weights[0].removesuffix("weight") + "bias")
    model.load_adapter(str(adapter), name, is_trainable=False)
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return head.to(device=model.device, dtype=weight.dtype).requires_grad_(False)
