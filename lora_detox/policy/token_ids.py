"""Ids that a model's files name: where responses start and end, and what fills padding."""

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from lora_detox.errors import SettingsError
from lora_detox.json_text import parse_json
from lora_detox.special_tokens import embedding_rows, id_list, is_inside

START = "decoder_start_token_id"
_T5_KINDS = {"t5", "mt5", "umt5", "longt5", "switch_transformers", "pop2piano", "udop"}
"""Their labels are shifted right behind the padding id."""
_SHIFTED_BEHIND_PAD = {"pegasus", "pegasus_x", "marian"}
_QUIET = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}


def generation_defaults(path: str, revision: str | None) -> dict[str, Any]:
    """What a model's generation_config.json says; nothing where it has none.

    Args:
        path: hub id or local folder.
        revision: hub revision.

    Returns:
        Its entries.

    Raises:
        SettingsError: the file is no JSON object.
    """
    place = str(Path(path).expanduser()) if Path(path).expanduser().is_dir() else path
    file = cached_file(place, "generation_config.json", revision=revision, **_QUIET)
    if file is None:
        return {}
    try:
        entries = parse_json(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(
            f"policy.path: {path} has a generation_config.json that is no JSON ({error}); "
            "repair it or remove it"
        ) from error
    return entries if isinstance(entries, dict) else {}


def complete_ids(config: PretrainedConfig, generation: dict[str, Any], key: str) -> None:
    """Make the ids of a configuration such that the model can be built and started.

    A padding id outside the embedding is replaced, as padding is masked and its id means nothing.
    An encoder-decoder without a start id takes that of its decoder's part, of
    generation_config.json, or what its family starts with.

    Args:
        config: changed in place.
        generation: entries of generation_config.json.
        key: setting that named the model, for messages.

    Raises:
        SettingsError: an encoder-decoder has no start id, or one outside its embedding.
    """
    for part in (config, *_parts(config)):
        rows = embedding_rows(part)
        pad = getattr(part, "pad_token_id", None)
        if pad is not None and not is_inside(pad, rows):
            ends = id_list(getattr(part, "eos_token_id", None))
            part.pad_token_id = next((one for one in ends if is_inside(one, rows)), None)
    if not config.is_encoder_decoder:
        return
    start, rows = _start_id(config, generation), embedding_rows(config, decoder=True)
    if start is None:
        raise SettingsError(
            f"{key}: this {config.model_type} model has no {START}, so that its decoder has no "
            f'first token; write one into its config.json, as in "{START}": 0'
        )
    if not is_inside(start, rows):
        raise SettingsError(
            f"{key}: {START} is {start}, but the decoder's embedding has {rows} rows (ids 0 to "
            f"{(rows or 1) - 1}); correct it in the model's config.json"
        )
    setattr(config, START, start)


def _parts(config: Any) -> list[Any]:
    names = ("text_config", "encoder", "decoder")
    return [part for name in names if (part := getattr(config, name, None)) is not None]


def _start_id(config: PretrainedConfig, generation: dict[str, Any]) -> int | None:
    """The first id that the decoder reads: as stated, or as Transformers itself begins."""
    decoder, kind = getattr(config, "decoder", None), config.model_type
    candidates = [getattr(config, START, None), getattr(decoder, START, None)]
    candidates.append(generation.get(START))
    if kind in _T5_KINDS or kind in _SHIFTED_BEHIND_PAD:
        candidates.append(getattr(config, "pad_token_id", None))
    candidates += [getattr(one, "bos_token_id", None) for one in (config, decoder)]
    candidates.append(generation.get("bos_token_id"))
    return next((one for value in candidates for one in id_list(value)), None)


def end_token_ids(
    tokenizer: PreTrainedTokenizerBase, config: Any, generation: dict[str, Any]
) -> tuple[int, ...]:
    """All ids that end a response: those of the tokenizer, the configuration and its generation.

    An id that the model has no row for is left out: it can never be drawn.

    Args:
        tokenizer: of the model; its own end comes first.
        config: of the model, nested parts included.
        generation: entries of generation_config.json.

    Returns:
        Ids without repetition.
    """
    values = [tokenizer.eos_token_id, getattr(config, "eos_token_id", None)]
    parts = (getattr(config, name, None) for name in ("text_config", "decoder"))
    values += [getattr(part, "eos_token_id", None) for part in parts]
    values.append(generation.get("eos_token_id"))
    rows = embedding_rows(config, decoder=True)
    ids = [one for value in values for one in id_list(value) if is_inside(one, rows)]
    return tuple(dict.fromkeys(ids))
