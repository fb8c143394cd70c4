"""A model of the same width with fewer layers and random weights, written as a checkpoint."""

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_detox.policy.adapter import empty_model

_STACKS = (("num_layers", "num_decoder_layers"), ("encoder_layers", "decoder_layers"))
"""Where encoder-decoder configurations have the depths of their two stacks."""
_BLOCK = 2**20
"""Random numbers that are repeated over a tensor: the time of a product knows no difference."""
_SCALE = 0.02


def depth_of(config: PretrainedConfig) -> int:
    """Layers of a model; of an encoder-decoder one those of its deeper stack."""
    return max(int(getattr(config, name)) for name in _depth_keys(config))


def shallow_config(config: PretrainedConfig, depth: int) -> PretrainedConfig:
    """The configuration with `depth` layers; two stacks keep the ratio of their depths.

    Args:
        config: of the whole model.
        depth: 1 to `depth_of(config)`.

    Returns:
        A copy.
    """
    whole, shallow = depth_of(config), copy.deepcopy(config)
    for key in _depth_keys(config):
        setattr(shallow, key, max(1, round(getattr(config, key) * depth / whole)))
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == whole:  # one entry a layer
            setattr(shallow, key, value[:depth])
    if hasattr(config, "attention_types"):  # GPT-Neo: kinds of attention, and how often in a row
        shallow.attention_types = [[list(config.attention_layers[:depth]), 1]]
    return shallow


def write_shallow(
    folder: Path,
    config: PretrainedConfig,
    depth: int,
    dtype: torch.dtype,
    tokenizer: PreTrainedTokenizerBase | None,
) -> int:
    """Write a random model that `load_policy` reads like any other.

    Args:
        folder: where to; made anew.
        config: of the whole model.
        depth: layers.
        dtype: of the weights.
        tokenizer: of the whole model; None writes one that only knows its special tokens.

    Returns:
        Bytes of the weights.
    """
    shallow = shallow_config(config, depth)
    model = empty_model(shallow, dtype).to_empty(device="cpu")
    model.tie_weights()
    block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0)) * _SCALE
    for tensor in (*model.parameters(), *model.buffers()):
        _fill(tensor.detach(), block)
    model.save_pretrained(folder)
    (tokenizer or _blank_tokenizer()).save_pretrained(folder)
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _fill(tensor: Tensor, block: Tensor) -> None:
    if not tensor.is_floating_point():
        tensor.zero_()
        return
    flat = tensor.view(-1)
    for begin in range(0, len(flat), len(block)):
        part = flat[begin : begin + len(block)]
        part.copy_(block[: len(part)])


def _depth_keys(config: PretrainedConfig) -> tuple[str, ...]:
    if config.is_encoder_decoder:
        for keys in _STACKS:
            if all(hasattr(config, key) for key in keys):
                return keys
    return (config.attribute_map.get("num_hidden_layers", "num_hidden_layers"),)


def _blank_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
