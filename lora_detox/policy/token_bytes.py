"""What each token adds to a text, in bytes: characters may be cut between two tokens."""

from transformers import PreTrainedTokenizerBase

from lora_detox.policy.words import (
    BYTE,
    MARKS,
    byte_of_sign,
    is_byte_level,
    white_space_marks,
)

_BEFORE = "a"
"""A letter that stands before a token where only decoding tells what it adds."""


def token_bytes(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[bytes]:
    """The bytes that each token adds to a text that is being written.

    Args:
        tokenizer: of the policy.
        vocabulary: rows of the output matrix, which may be more than the tokenizer has tokens.

    Returns:
        UTF-8 by token id; empty for special tokens and for ids without a token.
    """
    count = min(len(tokenizer), vocabulary)
    tokens = [str(one) for one in tokenizer.convert_ids_to_tokens(list(range(count)))]
    added = tokenizer.get_added_vocab()
    special = {i for i, one in tokenizer.added_tokens_decoder.items() if one.special}
    special |= set(tokenizer.all_special_ids)
    marks = white_space_marks(tokens, added)
    if not marks:
        texts = [_decoded(tokenizer, token_id) for token_id in range(count)]
    else:
        byte_level = is_byte_level(marks)
        texts = [_written(token, byte_level=byte_level and token not in added) for token in tokens]
    texts = [b"" if token_id in special else text for token_id, text in enumerate(texts)]
    return texts + [b""] * (vocabulary - count)


def _written(token: str, *, byte_level: bool) -> bytes:
    if alone := BYTE.fullmatch(token):
        return bytes.fromhex(alone[1])
    if byte_level:
        table = byte_of_sign()
        return bytes(table[sign] for sign in token if sign in table)
    for mark in MARKS:
        token = token.replace(mark, " ")
    return token.encode("utf-8", "replace")


def _decoded(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bytes:
    """What decoding puts behind a letter, in a vocabulary that marks no white space."""
    before = tokenizer(_BEFORE, add_special_tokens=False)["input_ids"]
    alone, both = (
        str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        for ids in (before, [*before, token_id])
    )
    return both.removeprefix(alone).encode("utf-8", "replace")
