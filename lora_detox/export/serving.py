"""Where an exported adapter can be served, and why not elsewhere, told from its files."""

from dataclasses import asdict, dataclass
from typing import Literal

from transformers import PretrainedConfig

from lora_detox.export.gguf_adapter import gguf_refusal
from lora_detox.policy.plain_lora import StoredAdapter, beyond_plain_lora, one_scaling
from lora_detox.settings.rollout_checks import VLLM_RANKS

Works = Literal["yes", "no", "unknown"]

_VLLM_LORA = frozenset(
    [
        "apertus",
        "arcee",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5",
        "exaone4",
        "falcon_h1",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "glm",
        "glm4",
        "gpt_bigcode",
        "gpt_oss",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "jamba",
        "lfm2",
        "llama",
        "mistral",
        "mixtral",
        "nemotron",
        "olmo2",
        "olmo3",
        "opt",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "qwen3_next",
        "seed_oss",
        "smollm3",
        "starcoder2",
    ]
)
_VLLM_NO_LORA = frozenset(
    [
        "bloom",
        "codegen",
        "dbrx",
        "falcon",
        "falcon_mamba",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "mamba",
        "mamba2",
        "mpt",
        "olmoe",
        "stablelm",
    ]
)
_TGI_LORA = frozenset(["gemma2", "llama", "mistral", "qwen2", "starcoder2"])
_EMBEDDINGS = ("lm_head", "embed_out", "embed_tokens", "wte", "shared", "embed_in")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A program that may serve an adapter.

    Attributes:
        where: its name.
        works: whether it can; unknown where its own list of models decides.
        how: what to tell it, or why it cannot.
    """

    where: str
    works: Works
    how: str


def serving_places(
    adapter: StoredAdapter, config: PretrainedConfig, *, merged: bool, gguf: bool
) -> list[Place]:
    """Where an adapter can be served.

    Args:
        adapter: read by `stored_adapter`.
        config: of the base.
        merged: whether the merged model was written.
        gguf: whether the GGUF file was written.

    Returns:
        One row for each program.
    """
    peft = Place(
        where="Transformers + PEFT", works="yes", how="checked by this export in a fresh process"
    )
    return [
        peft,
        _vllm(adapter, config),
        _text_generation_inference(adapter, config),
        _llama_cpp(adapter, config, written=gguf),
        _merged(config, written=merged),
    ]


def as_rows(places: list[Place]) -> list[dict[str, str]]:
    """The same for summary.json."""
    return [asdict(place) for place in places]


def _vllm(adapter: StoredAdapter, config: PretrainedConfig) -> Place:
    kind = str(config.model_type)
    reason = _not_one_file(adapter, config)
    if reason is None and kind in _VLLM_NO_LORA:
        reason = f"it runs {kind} without adapters"
    rank = _highest_rank(adapter) if reason is None else 0
    if rank > VLLM_RANKS[-1]:
        reason = f"rank {rank}, want at most {VLLM_RANKS[-1]}"
    if reason is not None:
        return Place(where="vLLM", works="no", how=reason)
    most = next(one for one in VLLM_RANKS if one >= rank)
    how = f"--enable-lora --lora-modules NAME=DIR --max-lora-rank {most}"
    if kind not in _VLLM_LORA:
        how = f"if its list of models has LoRA for {kind}: {how}"
    return Place(where="vLLM", works="yes" if kind in _VLLM_LORA else "unknown", how=how)


def _text_generation_inference(adapter: StoredAdapter, config: PretrainedConfig) -> Place:
    kind, name = str(config.model_type), "Text Generation Inference"
    reason = _not_one_file(adapter, config)
    if reason is not None:
        return Place(where=name, works="no", how=reason)
    if kind in _TGI_LORA:
        return Place(where=name, works="yes", how="LORA_ADAPTERS=NAME=DIR")
    return Place(where=name, works="unknown", how=f"if its {kind} has adapters: LORA_ADAPTERS")


def _llama_cpp(adapter: StoredAdapter, config: PretrainedConfig, *, written: bool) -> Place:
    if (reason := gguf_refusal(adapter, config)) is not None:
        return Place(where="llama.cpp", works="no", how=reason)
    file = "" if written else "export.gguf=true, then "
    return Place(where="llama.cpp", works="yes", how=f"{file}-m BASE.gguf --lora adapter.gguf")


def _merged(config: PretrainedConfig, *, written: bool) -> Place:
    where = "the folder merged/" if written else "export.merge=true"
    engines = "" if config.is_encoder_decoder else ", vLLM and others that run the base"
    how = f"{where}: Transformers alone{engines}"
    return Place(where="merged into the base", works="yes", how=how)


def _not_one_file(adapter: StoredAdapter, config: PretrainedConfig) -> str | None:
    """Why a server of many adapters on one decoder cannot take this one."""
    if config.is_encoder_decoder:
        return f"it has no encoder-decoders such as {config.model_type}"
    if (what := beyond_plain_lora(adapter)) is not None:
        return f"the adapter has {what}"
    if not one_scaling(adapter):
        return "rank_pattern or alpha_pattern, where it reads one rank and one alpha"
    ends = [module for module in adapter.modules if module.rpartition(".")[2] in _EMBEDDINGS]
    if ends or adapter.embeddings:
        return f"factors of {(*ends, *adapter.embeddings)[0]}, want those of the layers alone"
    return None


def _highest_rank(adapter: StoredAdapter) -> int:
    return max(adapter.rank(module) for module in adapter.modules)
