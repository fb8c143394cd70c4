"""What a trainer is built from: accelerator, optimizer, data loader, placed and lowered weights."""

import inspect
import os
from collections.abc import Callable
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, broadcast
from torch.utils.data import DataLoader

from lora_detox.classic.advice import caution
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.machine import gains_by_bf16
from lora_detox.policy.anatomy import state_size
from lora_detox.policy.attention import attend_by_length

_PRECISION = "ACCELERATE_MIXED_PRECISION"
KEPT_COLUMNS = ("label", "query", "response")


def build_accelerator(config: PPOConfig) -> Accelerator:
    """An accelerator with the config's trackers; accumulation is the trainer's own."""
    accelerator = Accelerator(
        log_with=config.log_with,
        project_config=ProjectConfiguration(**config.project_kwargs),
        **config.accelerator_kwargs,
    )
    settings = config.to_dict()
    if config.log_with == "tensorboard":
        settings = {k: v for k, v in settings.items() if isinstance(v, bool | int | float | str)}
    accelerator.init_trackers(
        config.tracker_project_name, config=settings, init_kwargs=config.tracker_kwargs
    )
    return accelerator


def fill_in(config: PPOConfig, model: PreTrainedModelWrapper, processes: int) -> None:
    """Write into the config what depends on model and processes."""
    config.world_size = processes
    config.is_encoder_decoder = model.encoder_decoder
    config.is_peft_model = model.is_peft_model
    config.backward_batch_size = config.mini_batch_size * config.gradient_accumulation_steps
    config.global_backward_batch_size = config.backward_batch_size * processes
    config.global_batch_size = config.batch_size * processes


def build_dataloader(
    dataset: Any, collator: Callable[..., Any] | None, config: PPOConfig, model: Any
) -> Any:
    """Whole batches of `batch_size` rows in random order."""
    if isinstance(dataset, datasets.Dataset) and config.remove_unused_columns:
        kept = {*inspect.signature(model.forward).parameters, *KEPT_COLUMNS}
        dataset = dataset.remove_columns([c for c in dataset.column_names if c not in kept])
    return DataLoader(
        dataset, batch_size=config.batch_size, collate_fn=collator, shuffle=True, drop_last=True
    )


def place(model: Any, device: torch.device) -> Any:
    """Move a model unless its layers are quantized or were placed already."""
    placed = getattr(model.backbone, "hf_device_map", None) is not None
    quantized = model.is_loaded_in_8bit or model.is_loaded_in_4bit
    return model if placed or quantized else model.to(device)


def lower(model: PreTrainedModelWrapper, accelerator: Accelerator, config: PPOConfig) -> bool:
    """Keep a PEFT policy's frozen weights in bf16, where that is requested or clearly faster.

    Accelerate's mixed precision requests it. Without any choice it is done as in the main
    path: on a CPU that multiplies bf16 in hardware, for models whose time is in matrix products.
    Then nothing has to be cast in a pass. Adapters and value head stay in fp32, as the optimizer
    needs them; what learns as a whole, or is quantized, is left to `accelerator.autocast`.

    Args:
        model: the policy, on its device; changed in place.
        accelerator: its `mixed_precision` comes from `PPOConfig.accelerator_kwargs`, from
            `accelerate launch`, or from ACCELERATE_MIXED_PRECISION.
        config: shows whether the program chose a precision.

    Returns:
        Whether it was done, so that there is nothing left to cast automatically.
    """
    if model.is_loaded_in_8bit or model.is_loaded_in_4bit or not model.is_peft_model:
        return False
    chosen = "mixed_precision" in config.accelerator_kwargs or _PRECISION in os.environ
    if chosen and accelerator.mixed_precision != "bf16":
        return False
    if not chosen and not _gains_by_bf16(model, accelerator.device):
        return False
    if not chosen:
        caution(
            "PPOTrainer: the frozen weights are kept in bfloat16, which this CPU multiplies twice "
            "as fast; to keep them in float32, pass "
            'PPOConfig(accelerator_kwargs={"mixed_precision": "no"})'
        )
    backbone = model.backbone
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        if tensor.dtype == torch.float32 and not tensor.requires_grad and "lora_" not in name:
            tensor.data = tensor.data.to(torch.bfloat16)
    attend_by_length(backbone, accelerator.device, torch.bfloat16)
    head = backbone.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    return True


def _contiguous(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """States without gaps: a bf16 product of a view with gaps copies the weights for each row.

    The last states of a batch are such a view: 1.1 GB for 16 rows of a GPT-Neo of 125 M weights.
    """
    return (args[0].contiguous(), *args[1:])


def _gains_by_bf16(model: PreTrainedModelWrapper, device: torch.device) -> bool:
    """Whether the main path would choose bf16 here, and the program did not load it by itself."""
    full = next(model.backbone.parameters()).dtype == torch.float32
    gains = gains_by_bf16(device, state_size(model.backbone.config))
    return device.type == "cpu" and full and gains


def adam(model: PreTrainedModelWrapper, learning_rate: float) -> torch.optim.Optimizer:
    """Adam on what is trainable."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trainable, lr=learning_rate)


def synchronise(model: Any) -> None:
    """Give every process the main process's trainable weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            broadcast(parameter.data, from_process=0)
