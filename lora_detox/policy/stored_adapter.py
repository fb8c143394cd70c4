"""An adapter that PEFT wrote, as the start of a training: whether it fits, and how it is loaded."""

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import load_peft_weights
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.hub import cached_file

from lora_detox.errors import SettingsError
from lora_detox.json_text import parse_json
from lora_detox.policy.adapter import empty_model
from lora_detox.policy.adapter_init import COLLAPSES
from lora_detox.policy.adapter_kinds import (
    changes_base,
    from_singular_vectors,
    init_of,
    kind_of,
    refusal,
    refusal_of_kind,
)
from lora_detox.policy.reference import Exchange, Reference, copies

KEY = "policy.adapter"
_ROUNDING = 1e-4
"""Of singular vectors in fp32, as a fraction; a training moves them by more."""
_UNSEEN_WITHOUT_WEIGHTS = {"BOFT", "FROD", "SHIRA", "UNILORA"}
"""Kinds that PEFT cannot build on a model without numbers."""
_SHARED_VECTORS = {"TINYLORA", "UNILORA", "VBLORA"}
"""Kinds whose layers share vectors, which are in the file once."""


def read_stored(path: str) -> PeftConfig:
    """PEFT's description of a stored adapter, of a kind that trains here.

    Args:
        path: folder or hub id.

    Returns:
        The description, as PEFT reads it.

    Raises:
        SettingsError: the kind or an option is refused, or the description cannot be read.
        OSError: the hub does not give it.
    """
    folder = os.path.expanduser(path)
    file = cached_file(folder, "adapter_config.json")
    try:
        kind = str(parse_json(Path(str(file)).read_text(encoding="utf-8"))["peft_type"])
        reason = refusal_of_kind(kind)
        if reason is None:
            stored = PeftConfig.from_pretrained(folder)
            reason = refusal(stored)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{KEY}: PEFT cannot read the adapter_config.json of {path} ({error}); want the folder "
            "as save_pretrained wrote it"
        ) from error
    if reason is not None:
        raise SettingsError(f"{KEY}: {path} cannot be used: {reason} (docs/adapters.md)")
    return stored


def check_use(
    path: str, stored: PeftConfig, config: PretrainedConfig, dtype: torch.dtype, *, quantized: bool
) -> None:
    """Refuse an adapter for another task, or one that these numbers of the base cannot carry.

    Args:
        path: as the settings name it.
        stored: PEFT's description of the adapter.
        config: of the model.
        dtype: of the base.
        quantized: whether the base is stored in fewer bits.

    Raises:
        SettingsError: with the key to change.
    """
    task = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
    written = getattr(stored.task_type, "value", stored.task_type)
    if written not in (None, task):
        raise SettingsError(
            f"{KEY}: {path} was made for task type {written}, want {task}, as this "
            f"{config.model_type} model writes text"
        )
    if quantized and changes_base(stored):
        raise SettingsError(
            f"{KEY}: {path} takes its start out of the base (init_lora_weights="
            f"{init_of(stored)}), which a quantized base cannot give; want quantization=none"
        )
    whole = getattr(stored, "modules_to_save", None)
    if dtype != torch.float32 and (whole or kind_of(stored) == "LN_TUNING"):
        raise SettingsError(
            f"{KEY}: {path} trains whole modules ({', '.join(whole or ['norms'])}) in "
            f"{str(dtype).removeprefix('torch.')}, where small steps are lost in rounding; want "
            "policy.dtype=float32"
        )


def check_tensors(path: str, stored: PeftConfig, config: PretrainedConfig) -> None:
    """Compare the tensors of an adapter's file with those that the model wants.

    Args:
        path: as the settings name it.
        stored: PEFT's description of the adapter.
        config: of the model.

    Raises:
        SettingsError: other shapes, tensors that are missing or left over, or a module of a type
            that the kind cannot sit on.
    """
    described = copy.deepcopy(stored)
    described.inference_mode = False
    kind = kind_of(described)
    if kind in _UNSEEN_WITHOUT_WEIGHTS:
        return
    if kind == "LORA":
        described.init_lora_weights = True  # what PiSSA begins with is overwritten anyway
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = get_peft_model(empty_model(config), described, low_cpu_mem_usage=True)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{KEY}: PEFT cannot put {path} on {config.model_type}: {error}"
        ) from error
    _fill(model, path, stored, config.model_type)


def _fill(model: Any, path: str, stored: PeftConfig, model_type: str) -> None:
    """Put the tensors of an adapter's file into a PEFT model, every one in its place."""
    tensors = load_peft_weights(os.path.expanduser(path), device="cpu")
    wild = [name for name, one in tensors.items() if one.is_floating_point() and not _finite(one)]
    if wild:
        raise SettingsError(
            f"{KEY}: {path} has numbers that are not finite, as in {min(wild)}; its training "
            "diverged, want another adapter"
        )
    try:
        result = set_peft_model_state_dict(
            model, tensors, low_cpu_mem_usage=model.device.type == "meta"
        )
    except RuntimeError as error:
        raise SettingsError(
            f"{KEY}: the tensors of {path} do not fit this {model_type} model or its own "
            f"adapter_config.json ({_detail(error)}); want the base that it was trained on, which "
            f"it says is {stored.base_model_name_or_path or 'unknown'}, as policy.path"
        ) from error
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    missing = set() if kind_of(stored) in _SHARED_VECTORS else learned & set(result.missing_keys)
    for what, names in (("lacks", missing), ("has besides", set(result.unexpected_keys))):
        if names:
            raise SettingsError(
                f"{KEY}: the file of {path} {what} {len(names)} tensors that its "
                f"adapter_config.json does not agree with, as {min(names)}; want the folder as "
                "save_pretrained wrote it, on the base that it was trained on"
            )


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def _detail(error: RuntimeError) -> str:
    """The first tensor that PEFT names, without the lines around it."""
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return (lines or str(error).splitlines())[0].rstrip(".")


def load_stored(
    backbone: PreTrainedModel, path: str, *, keep_start: bool, force_init: bool
) -> tuple[Any, Reference]:
    """Put a stored adapter on a backbone, ready to learn.

    Args:
        backbone: with its weights; some initialisations change them (see `Reference`).
        path: folder or hub id.
        keep_start: the reference is a frozen copy of the adapter; else the bare backbone.
        force_init: take an adapter that begins with singular vectors and is not trained.

    Returns:
        The PEFT model, and how it becomes the reference.

    Raises:
        SettingsError: PEFT cannot load it, its file changes the base, or it is not trained.
    """
    folder = os.path.expanduser(path)
    stored = PeftConfig.from_pretrained(folder)
    _check_base_tensors(backbone, stored, path)
    begins = changes_base(stored) or from_singular_vectors(stored)
    originals = weights_below(backbone, stored) if begins else ()
    try:
        model = PeftModel.from_pretrained(backbone, folder, is_trainable=True)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise SettingsError(f"{KEY}: PEFT cannot load {path}: {error}") from error
    if kind_of(stored) in _UNSEEN_WITHOUT_WEIGHTS:  # PEFT itself only warns
        _fill(model, path, stored, backbone.config.model_type)
    if not keep_start:
        return model, Reference(originals=originals)
    if from_singular_vectors(stored) and not force_init and _is_untrained(model, originals):
        raise SettingsError(
            f"{KEY}: {path} is an untrained start from singular vectors "
            f"(init_lora_weights={stored.init_lora_weights}); {COLLAPSES}"
        )
    return model, Reference(start=copies(p for p in model.parameters() if p.requires_grad))


def _check_base_tensors(backbone: PreTrainedModel, stored: PeftConfig, path: str) -> None:
    """PEFT writes a targeted embedding or output matrix beside its adapter, and reads it back."""
    if changes_base(stored):  # what it wrote then is the base less the adapter's start
        return
    own: Mapping[str, Tensor] = backbone.state_dict()
    copied = tuple(getattr(stored, "modules_to_save", None) or ())
    for name, tensor in load_peft_weights(os.path.expanduser(path), device="cpu").items():
        bare = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if bare not in own or not own[bare].is_floating_point():
            continue
        if bare.rpartition(".")[0].endswith(copied):  # as PEFT matches them
            continue
        if own[bare].shape != tensor.shape or not torch.equal(tensor.to(own[bare]), own[bare]):
            raise SettingsError(
                f"{KEY}: {path} holds {bare} of its base, and that of policy.path is another one; "
                "want the base that the adapter was trained on"
            )


def weights_below(backbone: PreTrainedModel, config: PeftConfig) -> Exchange:
    """The weights that an adapter will sit on, with copies of what they are now.

    Args:
        backbone: without adapter.
        config: PEFT's description of it.

    Returns:
        Weights of the targeted modules.
    """
    return copies(
        module.weight
        for name, module in backbone.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter)
        and (
            check_target_module_exists(config, name)
            or (config.target_modules == "all-linear" and isinstance(module, nn.Linear | Conv1D))
        )
    )


def _is_untrained(model: Any, originals: Exchange) -> bool:
    """Whether the factors are still the singular vectors that they began with.

    PiSSA begins with A = (S/s)^1/2 V^T and B = U (S/s)^1/2 of W = U S V^T, for the scaling s. That
    gives W A^T = s B B^T B, whatever the signs of the vectors. MiCA begins with A = 0.
    """
    before = {id(parameter): tensor for parameter, tensor in originals}
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or "default" not in layer.lora_A:
            continue
        down, up = (one["default"].weight.float() for one in (layer.lora_A, layer.lora_B))
        if not down.any():
            continue
        base: Any = layer.get_base_layer()
        weight = before[id(base.weight)].float()
        image = (weight.T if isinstance(base, Conv1D) else weight) @ down.T
        begun = layer.scaling["default"] * up @ (up.T @ up)
        if (image - begun).norm() > _ROUNDING * image.norm():
            return False
    return True
