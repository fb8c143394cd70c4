"""The mean of several adapters' updates, as one adapter.

An update of a layer is scaling * B A. Means of A and of B are not factors of the mean update, so
the factors stand beside each other: the rank is the sum of the ranks, and nothing is lost. What the
members do not share cancels, so that the mean is shorter than they are; it is stretched to their
length, as spherical interpolation keeps it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, set_peft_model_state_dict
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file
from torch import Tensor

from lora_detox.errors import SettingsError
from lora_detox.model_files import not_finite, weight_fault
from lora_detox.policy.adapter_kinds import changes_base, init_of, kind_of

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, kw_only=True)
class Soup:
    """A mean of updates.

    Attributes:
        tensors: factors by PEFT's names: A [R, in], B [out, R] for the scaling 1.
        rank: R, the sum of the ranks.
        cosine: mean over pairs of the cosine between their updates; 1 where all are the same.
        stretch: the mean is multiplied by this, 1 or more, to be as long as its members.
    """

    tensors: dict[str, Tensor]
    rank: int
    cosine: float
    stretch: float


def average_adapters(folders: Sequence[Path]) -> Soup:
    """Read PEFT adapters and take the mean of their updates.

    Wortsman et al. 2022, "Model soups"; of policies, on the sphere: Rame et al. 2024, "WARP",
    section 3.2. The length is the norm of all layers' updates taken as one vector.

    Args:
        folders: with adapter_config.json and adapter_model.safetensors; LoRA of any rank on the
            same layers.

    Returns:
        The mean, in fp32.

    Raises:
        SettingsError: a file that is no whole one, numbers that are not finite, adapters on
            different layers, with more than the two factors (DoRA), without any update, or with
            one that is not the product of the factors (PiSSA).
    """
    adapters = [_updates(folder) for folder in folders]
    layers = adapters[0].keys()
    for folder, adapter in zip(folders, adapters, strict=True):
        if adapter.keys() != layers:
            raise SettingsError(
                f"soup: the adapters of {folders[0]} and {folder} sit on different layers; want "
                "runs with the same adapter.targets and adapter.scope"
            )
    products = _products(adapters)
    lengths = products.diagonal().sqrt()
    if not lengths.all():
        raise SettingsError("soup: one of the adapters changes nothing; leave its run out")
    size = len(adapters)
    stretch = float(lengths.mean() / (products.sum().sqrt() / size))
    tensors = {}
    for layer in layers:
        factors = [adapter[layer] for adapter in adapters]
        tensors[layer + _A] = torch.cat([a for a, _ in factors])
        tensors[layer + _B] = torch.cat([b * (stretch / size) for _, b in factors], dim=1)
    pairs = list(combinations(range(size), 2))
    cosines = [float(products[i, j] / (lengths[i] * lengths[j])) for i, j in pairs]
    return Soup(
        tensors=tensors,
        rank=len(tensors[next(iter(layers)) + _A]),
        cosine=sum(cosines) / len(cosines),
        stretch=stretch,
    )


Updates = dict[str, tuple[Tensor, Tensor]]


def _updates(folder: Path) -> Updates:
    """A [r, in] and scaled B [out, r] by layer, fp32."""
    config: Any = PeftConfig.from_pretrained(str(folder))
    file = folder / "adapter_model.safetensors"
    if fault := weight_fault([file]):
        raise SettingsError(f"soup: {fault}; leave its run out")
    tensors = load_file(file)
    if fault := not_finite(tensors.items()):
        raise SettingsError(f"soup: {file}: {fault}; leave its run out")
    layers = sorted(name.removesuffix(_A) for name in tensors if name.endswith(_A))
    if kind_of(config) != "LORA" or config.bias != "none" or len(tensors) != 2 * len(layers):
        raise SettingsError(
            f"soup: the adapter of {folder} has more than LoRA's two factors; means are taken of "
            "adapter=lora and adapter=rslora alone"
        )
    if changes_base(config):
        raise SettingsError(
            f"soup: the adapter of {folder} began with init_lora_weights={init_of(config)}, which "
            "took a part out of the base, so that its factors are not its update; want runs with "
            "adapter.init=true"
        )
    return {one: _factors(tensors[one + _A], tensors[one + _B], one, config) for one in layers}


def _factors(a: Tensor, b: Tensor, layer: str, config: Any) -> tuple[Tensor, Tensor]:
    """A and scaled B of one layer, whose rank and alpha may be its own."""
    key = get_pattern_key(config.alpha_pattern.keys(), layer.removeprefix("base_model.model."))
    root = math.sqrt(len(a)) if config.use_rslora else len(a)
    return a.float(), config.alpha_pattern.get(key, config.lora_alpha) / root * b.float()


def _products(adapters: Sequence[Updates]) -> Tensor:
    """Inner products [n, n] of the updates, each taken as one vector over all layers, fp64."""
    size = len(adapters)
    products = torch.zeros(size, size, dtype=torch.float64)
    for layer in adapters[0]:
        for i, j in combinations_with_replacement(range(size), 2):
            (a, b), (c, d) = adapters[i][layer], adapters[j][layer]
            products[i, j] += ((a @ c.T) * (b.T @ d)).sum()  # <BA, DC> without BA
    return products.triu() + products.triu(diagonal=1).T


def apply_soup(model: Any, soup: Soup) -> None:
    """Write it into the trainable adapter of a PEFT model.

    Args:
        model: with a LoRA adapter "default" of the soup's rank and alpha = rank.
        soup: of adapters on the same layers.

    Raises:
        SettingsError: the model has no such layer.
    """
    keys = set_peft_model_state_dict(model, soup.tensors, adapter_name="default")
    if keys.unexpected_keys:
        raise SettingsError(
            f"soup: the adapters sit on {keys.unexpected_keys[0]}, which adapter.targets and "
            "adapter.scope leave out; want those that the runs were trained with"
        )
