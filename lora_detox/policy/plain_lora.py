"""What programs other than PEFT have to find in an adapter before they can serve it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.utils.other import get_pattern_key
from safetensors import safe_open

from lora_detox.policy.adapter_kinds import changes_base, init_of, kind_of

_PREFIX = "base_model.model."
_PARTS = (".lora_A.weight", ".lora_B.weight")
_EMBEDDING_PARTS = (".lora_embedding_A", ".lora_embedding_B")
_UNCHANGED = ".base_layer.weight"
"""Weights of the base that PEFT stores again where the adapter is on them."""
_MORE_THAN_FACTORS = {
    "use_dora": "DoRA, which also holds a magnitude of each row (adapter=lora has none)",
    "modules_to_save": "modules_to_save, whole modules beside the low-rank factors",
    "trainable_token_indices": "trainable_token_indices, rows of the embedding beside the factors",
    "lora_bias": "lora_bias, a bias beside the low-rank factors",
    "target_parameters": "target_parameters, factors of bare parameters",
    "layer_replication": "layer_replication, another stack of layers than the base has",
    "alora_invocation_tokens": "alora_invocation_tokens, an adapter that begins at given tokens",
}


@dataclass(frozen=True, kw_only=True)
class StoredAdapter:
    """An adapter's description and the names of its tensors, without their values.

    Attributes:
        config: as PEFT reads it.
        modules: modules of the base that have factors, by the base's own names, sorted.
        embeddings: those of them that are embeddings.
        further: names of tensors that are no factors.
    """

    config: PeftConfig
    modules: tuple[str, ...]
    embeddings: tuple[str, ...]
    further: tuple[str, ...]

    def rank(self, module: str) -> int:
        """Rank of a module's factors."""
        return int(_of_module(getattr(self.config, "rank_pattern", None), module, self.config.r))

    def scaling(self, module: str) -> float:
        """What B @ A of a module is multiplied by: alpha / rank, with rsLoRA alpha / sqrt(rank)."""
        alpha = float(
            _of_module(getattr(self.config, "alpha_pattern", None), module, self.config.lora_alpha)
        )
        rank = self.rank(module)
        root: float = rank**0.5 if getattr(self.config, "use_rslora", False) else rank
        return alpha / root


def stored_adapter(folder: Path) -> StoredAdapter:
    """Read what an adapter consists of.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.

    Returns:
        Its description.
    """
    with safe_open(folder / "adapter_model.safetensors", framework="np") as file:
        names = [name.removeprefix(_PREFIX) for name in file.keys()]  # noqa: SIM118
    modules, embeddings, further = set(), set(), []
    for name in names:
        ends = [end for end in (*_PARTS, *_EMBEDDING_PARTS) if name.endswith(end)]
        if not ends and not name.endswith(_UNCHANGED):
            further.append(name)
        if not ends:
            continue
        modules.add(name.removesuffix(ends[0]))
        if ends[0] in _EMBEDDING_PARTS:
            embeddings.add(name.removesuffix(ends[0]))
    return StoredAdapter(
        config=PeftConfig.from_pretrained(str(folder)),
        modules=tuple(sorted(modules)),
        embeddings=tuple(sorted(embeddings)),
        further=tuple(sorted(further)),
    )


def beyond_plain_lora(adapter: StoredAdapter) -> str | None:
    """What an adapter has beside low-rank factors on an unchanged base; None for plain LoRA.

    Args:
        adapter: read by `stored_adapter`.

    Returns:
        The first such thing, as part of a sentence.
    """
    if (what := more_than_factors(adapter.config)) is not None:
        return what
    if adapter.further:
        return f"{adapter.further[0]}, a tensor that is no low-rank factor"
    return None


def more_than_factors(config: PeftConfig) -> str | None:
    """The same, as far as the description of an adapter tells.

    Args:
        config: as PEFT reads it.

    Returns:
        The first such thing, as part of a sentence; None for plain LoRA.
    """
    if (kind := kind_of(config)) != "LORA":
        return f"the kind {kind}, want LORA"
    if (bias := getattr(config, "bias", "none")) not in ("none", False):
        return f"bias={bias}, trained biases of the base"
    for option, what in _MORE_THAN_FACTORS.items():
        if getattr(config, option, None):
            return what
    if changes_base(config):
        init = f"init_lora_weights={init_of(config)}"
        return f"{init}, whose start PEFT takes out of the base when it loads"
    return None


def one_scaling(adapter: StoredAdapter) -> bool:
    """Whether every module has the scaling that `lora_alpha` and `r` alone give."""
    config = adapter.config
    return not (getattr(config, "rank_pattern", None) or getattr(config, "alpha_pattern", None))


def _of_module(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's rule: the first key that the module's name ends with."""
    if not pattern:
        return default
    return pattern.get(get_pattern_key(pattern.keys(), module), default)
