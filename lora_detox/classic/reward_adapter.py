"""A reward model that is an adapter on the policy's own backbone."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from lora_detox.classic.weights import find_file, read_tensors


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
        raise ValueError("reward_adapter can only be used with a PEFT model")
    if not isinstance(adapter, str | Path):
        raise ValueError(f"reward_adapter must be a folder or a hub id, got {type(adapter)}")
    file = find_file(str(adapter), "adapter_model.safetensors")
    if file is None:
        raise ValueError(f"reward_adapter: {adapter} has no adapter_model.safetensors")
    tensors = read_tensors(file, ("",))
    weights = [k for k in tensors if ".score." in k and k.endswith("weight")]
    if len(weights) != 1:
        raise ValueError(f"reward_adapter: {adapter} has no score head (task type SEQ_CLS)")
    weight = tensors[weights[0]]
    bias = tensors.get(weights[0].removesuffix("weight") + "bias")
    model.load_adapter(str(adapter), name, is_trainable=False)
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return head.to(device=model.device, dtype=weight.dtype).requires_grad_(False)
