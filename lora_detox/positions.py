"""How many positions a model has, by its configuration, and whether a text fits them."""

from dataclasses import dataclass
from typing import Any

from lora_detox.errors import SettingsError

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
_ENCODER_NAMES = ("max_encoder_position_embeddings", "max_source_positions")
_DECODER_NAMES = ("max_decoder_position_embeddings", "max_target_positions")
_RELATIVE = {
    "bloom",
    "longt5",
    "mt5",
    "pop2piano",
    "switch_transformers",
    "t5",
    "transfo-xl",
    "udop",
    "umt5",
    "xlnet",
}
"""Kinds that see distances alone, whatever numbers an old configuration of theirs holds."""
_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Kinds that count positions from their padding id + 1: RoBERTa's 514 hold 512 tokens."""


@dataclass(frozen=True, kw_only=True)
class PositionLimits:
    """How many tokens a model reads and writes; None where nothing bounds them.

    Attributes:
        query: tokens of a prompt, of an encoder; for a decoder-only model those of prompt and
            response together.
        response: tokens of a response; None for a decoder-only model.
        together: True where `query` bounds the sum.
        name: key of the configuration that the bound of the query stands under.
        response_name: the same for the response.
    """

    query: int | None
    response: int | None
    together: bool
    name: str
    response_name: str


def position_limits(config: Any) -> PositionLimits:
    """The limits of a language model.

    Args:
        config: of the model.

    Returns:
        One limit for both sides of a decoder-only model, one for each of an encoder-decoder.
    """
    if not config.is_encoder_decoder:
        name, limit = _stated(config, ())
        return PositionLimits(
            query=limit, response=None, together=True, name=name, response_name=name
        )
    encoder, decoder = (getattr(config, part, None) or config for part in ("encoder", "decoder"))
    name, query = _stated(encoder, _ENCODER_NAMES)
    response_name, response = _stated(decoder, _DECODER_NAMES)
    return PositionLimits(
        query=query, response=response, together=False, name=name, response_name=response_name
    )


def position_limit(config: Any) -> int | None:
    """Tokens that a model reads at once, an encoder-decoder with both of its sides."""
    limits = position_limits(config)
    return min((one for one in (limits.query, limits.response) if one), default=None)


def _stated(config: Any, names: tuple[str, ...]) -> tuple[str, int | None]:
    """Key and number of positions of one stack."""
    text = getattr(config, "text_config", None)
    if text is not None:
        return _stated(text, names)
    kind = config.model_type
    if kind in _RELATIVE or (getattr(config, "alibi", False) and kind == "falcon"):
        return "", None
    for name in (*names, *_NAMES):
        limit = getattr(config, name, None)
        if not isinstance(limit, int) or limit <= 0:
            continue
        if kind in _AFTER_PADDING:
            limit -= (getattr(config, "pad_token_id", None) or 0) + 1
        elif kind == "prophetnet":
            limit -= (getattr(config, "pad_token_id", None) or 0) + 2
        return config.attribute_map.get(name, name), max(limit, _scaled(config, limit))
    return "", None


def _scaled(config: Any, limit: int) -> int:
    """Positions after a stretch of rotary embeddings, as YaRN or linear scaling state it."""
    stretches = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    stretches += [one for each in stretches if isinstance(each, dict) for one in each.values()]
    most = limit
    for each in stretches:
        if isinstance(each, dict) and isinstance(factor := each.get("factor"), int | float):
            most = max(most, int((each.get("original_max_position_embeddings") or limit) * factor))
    return most


def check_positions(
    config: Any,
    query: int,
    response: int,
    *,
    query_key: str = "data.max_query_tokens",
    response_key: str = "generation.response_tokens",
    reads_last: bool = False,
) -> None:
    """A prompt and a response fit the positions of a model.

    Args:
        config: of the model.
        query: tokens of the longest prompt, special tokens included.
        response: most tokens of a response.
        query_key: setting that bounds the prompt.
        response_key: setting that bounds the response.
        reads_last: True where the model also reads the last token of a response; in sampling and
            scoring that token is only predicted.

    Raises:
        SettingsError: they do not fit; says which key to lower, and to what.
    """
    limits = position_limits(config)
    if limits.together:
        read = response if reads_last else response - 1
        if limits.query is None or query + read <= limits.query:
            return
        room = limits.query - read
        lower = f"{query_key} to {room} or {response_key}" if room > 0 else response_key
        raise SettingsError(
            f"{query_key}: the longest prompt has {query} tokens and {response_key} allows "
            f"{response} more, but this {config.model_type} model has {limits.query} positions "
            f"({limits.name} in its configuration); lower {lower}"
        )
    for key, what, tokens, limit, name in (
        (query_key, "the longest prompt has", query, limits.query, limits.name),
        (response_key, "a response may have", response, limits.response, limits.response_name),
    ):
        if limit is not None and tokens > limit:
            raise SettingsError(
                f"{key}: {what} {tokens} tokens, but the {config.model_type} model has {limit} "
                f"positions there ({name} in its configuration); lower {key} to {limit}"
            )


def always_fits(config: Any, query: int, response: int) -> bool:
    """Whether even a prompt and a response of these numbers of tokens fit."""
    try:
        check_positions(config, query, response, reads_last=True)
    except SettingsError:
        return False
    return True
