"""Which tokens begin a word: what the length of a response is counted in."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_detox.text.words import is_unspaced

_SENTENCEPIECE_MARK = "▁"
MARKS = ("Ġ", "Ċ", "ĉ", _SENTENCEPIECE_MARK)
"""White space in the tokens of byte-level and sentencepiece vocabularies."""
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte of a character that a sentencepiece vocabulary lacks."""


def word_starts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Bool[Tensor, "V"]:
    """Whether each token begins a word with a letter: figures and signs are no words.

    In a script without spaces, where each character counts as a word, a token with a letter does.

    Args:
        tokenizer: of the policy.
        vocabulary: rows of the output matrix, which may be more than the tokenizer has tokens.

    Returns:
        True at tokens of white space and a letter, and at those with a letter of a script without
        spaces; at every token but the special ones where the vocabulary marks no white space.
    """
    tokens = [str(one) for one in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    added = tokenizer.get_added_vocab()
    marks = white_space_marks(tokens, added)
    byte_level = is_byte_level(marks)
    begins = torch.tensor(
        [
            not marks or _begins_word(token, byte_level=byte_level and token not in added)
            for token in tokens
        ]
    )
    begins[[i for i in tokenizer.all_special_ids if i < len(begins)]] = False
    starts = torch.zeros(max(vocabulary, len(begins)), dtype=torch.bool)
    starts[: len(begins)] = begins
    return starts


def white_space_marks(tokens: Iterable[str], added: Collection[str]) -> Counter[str]:
    """How often each sign of white space stands at the front of a token.

    Args:
        tokens: of a vocabulary, as it writes them.
        added: those that were added as they are.

    Returns:
        Sign -> count; empty for a vocabulary that marks no white space.
    """
    return Counter(token[0] for token in tokens if token not in added and token.startswith(MARKS))


def is_byte_level(marks: Counter[str]) -> bool:
    """Whether a vocabulary with such marks is one of bytes, not of sentencepiece.

    Counted, since the mark of the one kind is a letter of Maltese in the other.
    """
    return 2 * marks[_SENTENCEPIECE_MARK] < marks.total()


def _begins_word(token: str, *, byte_level: bool) -> bool:
    if alone := BYTE.fullmatch(token):
        text, cut = "", bytes.fromhex(alone[1])
    elif token.isascii():
        return False
    else:
        text, cut = _read_bytes(token) if byte_level else (_read_marks(token), b"")
    if any(map(is_unspaced, text)):
        return True
    word = text.lstrip()
    if word:
        return word != text and word[0].isalpha()
    return _is_cut_letter(cut, after_space=bool(text))


def _read_marks(token: str) -> str:
    """The text of a sentencepiece token, or of one that was added as it is."""
    return f" {token[1:]}" if token.startswith(MARKS) else token


def _read_bytes(token: str) -> tuple[str, bytes]:
    """The whole characters at the front of a byte-level token, and the bytes of one that is cut."""
    table = byte_of_sign()
    content = bytes(table[sign] for sign in token if sign in table)
    try:
        return content.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        return content[: error.start].decode("utf-8"), content[error.start :]


@lru_cache(maxsize=1)
def byte_of_sign() -> dict[str, int]:
    """The alphabet of byte-level BPE (GPT-2), in which bytes that print stand for themselves."""
    others = (byte for byte in range(256) if byte not in _PRINTABLE)
    signs = {chr(byte): byte for byte in _PRINTABLE}
    return signs | {chr(256 + place): byte for place, byte in enumerate(others)}


@lru_cache(maxsize=1024)
def _is_cut_letter(cut: bytes, *, after_space: bool) -> bool:
    """Whether the first bytes of a character, whose others are in the next token, begin a word.

    They do where more letters than signs begin with them. Characters of four bytes are emoji nearly
    always.
    """
    if not b"\xc2" <= cut[:1] < b"\xf0" or len(cut) > 2:
        return False
    whole = 2 if cut < b"\xe0" else 3
    point, missing = cut[0] & (0x1F if whole == 2 else 0x0F), whole - len(cut)
    for byte in cut[1:whole]:
        point = (point << 6) | (byte & 0x3F)
    points = range(point << (6 * missing), (point + 1) << (6 * missing))
    characters = [chr(point) for point in points]
    known = [one for one in characters if unicodedata.category(one) != "Cn"]
    if 2 * sum(map(is_unspaced, known)) > len(known):
        return True
    kinds = Counter(unicodedata.category(one)[0] for one in known)
    return after_space and kinds["L"] > kinds["P"] + kinds["S"] + kinds["C"]
