"""Where the parts of a language model are: the stack that writes, its configuration, its head.

Transformers names these parts differently from model to model: a multimodal model has its text
stack and the text's configuration one level down, and an encoder-decoder put together from two
models keeps a whole language model as decoder.
"""

import inspect
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

_NESTED = ("decoder", "generator", "text_config")
"""Where the configuration of the part that writes may stand."""


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the part that writes text; the same one where there is no other.

    Args:
        config: of the whole model.

    Returns:
        Of the decoder, or of the text part of a multimodal model.
    """
    candidates = (getattr(config, name, None) for name in _NESTED)
    return next((one for one in candidates if isinstance(one, PretrainedConfig)), config)


def state_size(config: PretrainedConfig) -> int:
    """Width H of the states that the head reads, as the value head does.

    Args:
        config: of the whole model.

    Returns:
        Numbers in a state; OPT-350m projects them to the width of its embedding.
    """
    text = text_config(config)
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def head_owner(model: PreTrainedModel) -> PreTrainedModel:
    """The module whose forward turns the states of its stack into logits.

    Args:
        model: a language model.

    Returns:
        The model itself; the decoder where that is a whole language model (`EncoderDecoderModel`).
    """
    if not model.config.is_encoder_decoder:
        return model
    decoder: Any = model.get_decoder()
    own = isinstance(decoder, PreTrainedModel) and decoder.get_output_embeddings() is not None
    # BART's stacks share the model's configuration; a model that was put in as decoder has its own.
    return decoder if own and decoder.config is not model.config and _wraps(decoder) else model


def decoder_stack(model: PreTrainedModel) -> Any:
    """The module that reads token ids and returns the states that the head reads.

    Args:
        model: a language model of either family.

    Returns:
        The decoder of an encoder-decoder; the text stack of a decoder-only model.

    Raises:
        ValueError: the model keeps its stack where it cannot be found.
    """
    owner = head_owner(model)
    if owner is model and model.config.is_encoder_decoder:
        return model.get_decoder()
    if text_config(owner.config) is owner.config and _wraps(owner):
        return owner.base_model
    for stack in (owner.get_decoder(), getattr(owner, "model", None)):
        if isinstance(stack, nn.Module) and stack is not owner and hasattr(stack, "config"):
            return stack
    raise ValueError(f"{type(model).__name__} has no stack of decoder layers under a known name")


def cache_keyword(stack: nn.Module) -> str:
    """The argument by which a model or stack takes its cache, and names it in its output.

    Transformers 5.24 names it `cache` everywhere, and its models may take the older names without
    reading them (Mamba did).

    Args:
        stack: a module with a forward of Transformers.

    Returns:
        `cache`; before 5.24 `past_key_values`, and `cache_params` of stacks with a state alone.
    """
    known = inspect.signature(stack.forward).parameters
    return next((name for name in ("cache", "cache_params") if name in known), "past_key_values")


def layer_list(stack: nn.Module) -> tuple[nn.Module, str]:
    """Where a stack keeps its layers.

    Args:
        stack: an encoder or a decoder.

    Returns:
        The module that holds the list of layers, and the list's name there.

    Raises:
        ValueError: it has no list of layers.
    """
    count = getattr(getattr(stack, "config", None), "num_hidden_layers", None)
    lists = [
        (owner, name, len(child))
        for owner in stack.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not lists:
        raise ValueError(f"{type(stack).__name__} has no list of layers")
    # Some stacks have other lists before that of their layers, of another length.
    owner, name, _ = next((one for one in lists if one[2] == count), lists[0])
    return owner, name


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the stack that writes, from the lowest to the last.

    Args:
        model: a language model of either family.

    Returns:
        At least one layer.

    Raises:
        ValueError: the model keeps them where they cannot be found.
    """
    owner, name = layer_list(decoder_stack(model))
    return list(getattr(owner, name))


def _wraps(model: PreTrainedModel) -> bool:
    """Whether a model finds its stack under the name that its class states."""
    return model.base_model is not model
