"""The adapter as a GGUF file for llama.cpp, read back before it counts as written.

llama.cpp adds `scale * alpha / rank * (B @ A)` to a weight of the base, with one alpha for the
whole file. Names and the order of rows are those that llama.cpp's own `convert_hf_to_gguf.py` gives
to the base. Values are written in fp32.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.torch import load_file
from transformers import PretrainedConfig

from lora_detox.errors import ExportError, SettingsError
from lora_detox.policy.plain_lora import StoredAdapter, beyond_plain_lora, stored_adapter

GGUF_ADAPTER = "adapter.gguf"
"""Its name beside adapter_model.safetensors."""
Order = Literal["same", "rotary", "fused"]

ARCHITECTURES = {
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "t5": "t5",
}
"""Model types of Transformers that are written here, and what llama.cpp calls them."""
_ROTARY = {".q_proj": "num_attention_heads", ".k_proj": "num_key_value_heads"}
"""Modules of `llama` whose rows llama.cpp keeps in another order, with their number of heads."""


@dataclass(frozen=True, kw_only=True)
class GgufModule:
    """Where a module's factors go.

    Attributes:
        name: of the weight in the base's GGUF file.
        order: of B's rows: as they are, rotary halves interleaved, or query, key and value of all
            heads one after the other.
        heads: number of heads, where the order depends on it.
    """

    name: str
    order: Order = "same"
    heads: int = 1


@dataclass(frozen=True, kw_only=True)
class GgufPlan:
    """What a GGUF file of an adapter consists of.

    Attributes:
        architecture: llama.cpp's name of it.
        modules: of the base, by its own names.
        alpha: of the file.
    """

    architecture: str
    modules: dict[str, GgufModule]
    alpha: float


def gguf_refusal(adapter: StoredAdapter, config: PretrainedConfig) -> str | None:
    """Why llama.cpp cannot serve an adapter; None where it can, as far as its files tell.

    Args:
        adapter: read by `stored_adapter`.
        config: of the base.

    Returns:
        The reason, as part of a sentence.
    """
    kind = str(config.model_type)
    if kind not in ARCHITECTURES:
        return f"model type {kind}, want one of {', '.join(ARCHITECTURES)}"
    if adapter.embeddings:
        return f"{adapter.embeddings[0]} is an embedding, whose factors are not written"
    if "lm_head" in adapter.modules and config.tie_word_embeddings:
        return "lm_head shares its weight with the embedding, which llama.cpp keeps once"
    what = beyond_plain_lora(adapter)
    return None if what is None else f"the adapter has {what}"


def plan_gguf(adapter: StoredAdapter, config: PretrainedConfig) -> GgufPlan:
    """Name and order of every tensor, found out before any weight loads.

    Args:
        adapter: read by `stored_adapter`.
        config: of the base.

    Returns:
        The plan.

    Raises:
        SettingsError: llama.cpp cannot serve this adapter, or has no such module.
    """
    if (reason := gguf_refusal(adapter, config)) is not None:
        raise SettingsError(f"export.gguf: {reason}; want export.gguf=false")
    gguf = _package()
    architecture = ARCHITECTURES[str(config.model_type)]
    kind = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = max(config.num_hidden_layers, getattr(config, "num_decoder_layers", None) or 0)
    names, modules = gguf.get_tensor_name_map(kind, layers), {}
    for module in adapter.modules:
        name = names.get_name(module)
        if name is None:
            raise SettingsError(
                f"export.gguf: llama.cpp's {architecture} has no module {module}, which the "
                "adapter changes; want export.gguf=false"
            )
        modules[module] = _placed(f"{name}.weight", module, architecture, config)
    return GgufPlan(architecture=architecture, modules=modules, alpha=_alpha(adapter))


def write_gguf(folder: Path, plan: GgufPlan, name: str) -> None:
    """Write `adapter.gguf` beside an adapter, and read it back.

    Args:
        folder: of the adapter as PEFT reads it.
        plan: made of the same adapter, at any strength.
        name: of the adapter, for people.

    Raises:
        ExportError: the file does not read back as the adapter.
    """
    gguf, adapter, path = _package(), stored_adapter(folder), folder / GGUF_ADAPTER
    writer = gguf.GGUFWriter(path, plan.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, plan.alpha)
    for module, a, b in _factors(folder, adapter):
        place = plan.modules[module]
        factor = adapter.scaling(module) * adapter.rank(module) / plan.alpha
        rows = reordered(b, place.order, place.heads)
        writer.add_tensor(f"{place.name}.lora_a", a)
        writer.add_tensor(
            f"{place.name}.lora_b", rows if factor == 1 else rows * np.float32(factor)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check_read_back(folder, adapter, plan)


def reordered(rows: np.ndarray, order: Order, heads: int) -> np.ndarray:
    """Rows of a weight, or of its factor B, as llama.cpp wants them.

    Args:
        rows: [O, R].
        order: see `GgufModule`.
        heads: number of heads.

    Returns:
        The same rows in another order.
    """
    if order == "same":
        return rows
    size, last = rows.shape[0] // heads, rows.shape[1]
    if order == "rotary":  # halves of a head, as Transformers rotates them -> pairs
        parts = rows.reshape(heads, 2, size // 2, last).swapaxes(1, 2)
    else:  # query, key and value of each head -> all queries, all keys, all values
        parts = rows.reshape(heads, 3, size // 3, last).swapaxes(0, 1)
    return np.ascontiguousarray(parts.reshape(rows.shape))


def _placed(name: str, module: str, architecture: str, config: PretrainedConfig) -> GgufModule:
    if architecture == "gptneox" and module.endswith(".query_key_value"):
        return GgufModule(name=name, order="fused", heads=config.num_attention_heads)
    heads = next((key for end, key in _ROTARY.items() if module.endswith(end)), None)
    if architecture == "llama" and heads is not None:
        count = getattr(config, heads, None) or config.num_attention_heads
        return GgufModule(name=name, order="rotary", heads=count)
    return GgufModule(name=name)


def _alpha(adapter: StoredAdapter) -> float:
    """The alpha of the file: the first module's; llama.cpp takes 0 for no scaling at all."""
    first = adapter.modules[0]
    return adapter.scaling(first) * adapter.rank(first) or 1.0


def _factors(folder: Path, adapter: StoredAdapter) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each module with its factors A [R, I] and B [O, R] in fp32."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for module in adapter.modules:
        names = [f"base_model.model.{module}.lora_{part}.weight" for part in ("A", "B")]
        a, b = (tensors[one].float().contiguous().numpy() for one in names)
        yield module, a, b


def _check_read_back(folder: Path, adapter: StoredAdapter, plan: GgufPlan) -> None:
    """The file's alpha / rank * B is the adapter's scaling * B in the other order, and A is A."""
    reader = _package().GGUFReader(folder / GGUF_ADAPTER)
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    stored = {one.name: np.asarray(one.data) for one in reader.tensors}
    for module, a, b in _factors(folder, adapter):
        place = plan.modules[module]
        b_wanted = reordered(b, place.order, place.heads) * adapter.scaling(module)
        b_read = stored[f"{place.name}.lora_b"] * (alpha / a.shape[0])
        same = np.array_equal(stored[f"{place.name}.lora_a"], a)
        if not same or not np.allclose(b_read, b_wanted, rtol=1e-5, atol=0):
            raise ExportError(
                f"export.gguf: {place.name} reads back with other values than {module} of the "
                "adapter has; do without export.gguf"
            )


def _package() -> Any:
    """The package gguf, an extra that the settings have looked for."""
    return importlib.import_module("gguf")
