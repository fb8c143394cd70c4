"""What tokenizers and configurations say of special tokens, for policies and classifiers alike."""

from typing import Any

from transformers import PreTrainedTokenizerBase

_EXAMPLES = ("text", "a", "1", "\u6587")
"""Texts that special tokens are seen around; a tokenizer may drop the letters of some."""


def tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Special tokens that a tokenizer puts before and after a text, seen on an example.

    Args:
        tokenizer: any.

    Returns:
        Ids before the text and ids after it; both empty where it adds none.
    """
    for text in _EXAMPLES:
        bare, whole = (
            _ids(tokenizer, text, add_special_tokens=special) for special in (False, True)
        )
        starts = [
            start
            for start in range(len(whole) - len(bare) + 1)
            if whole[start : start + len(bare)] == bare
        ]
        if bare and len(starts) == 1:  # several: the text is read as the special token itself
            return whole[: starts[0]], whole[starts[0] + len(bare) :]
    return [], []


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool) -> list[int]:
    encoded: Any = tokenizer(
        text, add_special_tokens=add_special_tokens, truncation=False, verbose=False
    )
    return list(encoded["input_ids"])


def embedding_rows(config: Any, *, decoder: bool = False) -> int | None:
    """Token ids that a model has an embedding for: 0 up to this number, not included.

    Args:
        config: of the model; nested text, encoder and decoder parts are looked into.
        decoder: of an encoder-decoder model take what its decoder reads, not its encoder.

    Returns:
        The number of rows, None where the configuration does not say.
    """
    for name in ("decoder" if decoder else "encoder", "text_config"):
        part = getattr(config, name, None)
        if part is not None and (nested := embedding_rows(part)):
            return nested
    rows = getattr(config, "vocab_size", None)
    return int(rows) if isinstance(rows, int) and rows > 0 else None


def is_inside(token_id: Any, rows: int | None) -> bool:
    """Whether a token id is a number that an embedding of `rows` rows has a row for."""
    return isinstance(token_id, int) and token_id >= 0 and (rows is None or token_id < rows)


def id_list(value: Any) -> list[int]:
    """One id, a list of ids or None, as configurations have them, as a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [int(one) for one in values if one is not None]


def ids_outside(tokenizer: PreTrainedTokenizerBase, rows: int | None) -> dict[str, int]:
    """Tokens of a tokenizer whose ids lie outside an embedding; none where all fit."""
    if rows is None or len(tokenizer) <= rows:
        highest = max(tokenizer.get_added_vocab().values(), default=0)
        if rows is None or highest < rows:
            return {}
    return {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}


def choose_padding(
    tokenizer: PreTrainedTokenizerBase, rows: int | None, candidates: list[int | None]
) -> None:
    """Give a tokenizer a padding token that a model has a row for, where its own is not one.

    Padding is masked by lengths, so that any token serves.

    Args:
        tokenizer: changed in place.
        rows: of the model's embedding; None where that is not known.
        candidates: ids to take in its place, best first.
    """
    if is_inside(tokenizer.pad_token_id, rows):
        return
    chosen = next((one for one in candidates if is_inside(one, rows)), None)
    if chosen is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(chosen)
