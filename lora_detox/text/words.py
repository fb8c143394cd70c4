"""What a word is, in any script: the one notion behind ROUGE, word counts, distinct-n and length.

English is as it always was: words between white space where words are counted, runs of a-z and 0-9
where texts are compared. Scripts that put no space between words (Chinese, Japanese, Thai, Khmer
and others) have no words that a rule could see, so each of their characters stands for one, with
the marks that belong to it.
"""

import unicodedata
from functools import lru_cache

import regex

_SCRIPTS = """
    Han Hiragana Katakana Bopomofo Thai Lao Khmer Myanmar Tibetan Yi Tai_Le New_Tai_Lue Tai_Tham
    Tai_Viet Javanese Balinese
"""
_UNSPACED = r"[[\p{L}\p{Nl}]&&[" + "".join(rf"\p{{scx={one}}}" for one in _SCRIPTS.split()) + "]]"
# Superscripts and circled figures are left out, as rouge_score leaves them out of English.
_FIRST = rf"[[\p{{L}}\p{{Nd}}\p{{Nl}}]--{_UNSPACED}]"
_LATER = rf"[[\p{{L}}\p{{Mn}}\p{{Mc}}\p{{Nd}}\p{{Nl}}]--{_UNSPACED}--\p{{Variation_Selector}}]"
_JOINERS = "\u200c\u200d"  # inside words of Persian and Hindi
_INSIDE = rf"(?:{_LATER}|[{_JOINERS}](?=[{_LATER}--\p{{ASCII}}]))"


def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern, regex.VERSION1)


_CHARACTER = rf"(?={_UNSPACED})\X"
_IS_UNSPACED = _compiled(_UNSPACED)
_IS_FOREIGN = _compiled(r"[[\p{L}\p{Mn}\p{Mc}\p{Nd}\p{Nl}]--\p{ASCII}--\p{Variation_Selector}]")
_ANY_WORD = _compiled(r"[\p{L}\p{Nd}\p{Nl}]")
_WORD = _compiled(rf"{_CHARACTER}|{_FIRST}{_INSIDE}*")
_ENGLISH_WORD = _compiled(r"[a-z0-9]+")
_LOOSE_WORD = _compiled(rf"{_CHARACTER}|[{_FIRST}\p{{No}}_][{_LATER}\p{{No}}_]*")
# Without the vowels of Thai and Lao that NFKC would take apart.
_LETTERS = _compiled(r"[[\p{L}\p{M}\p{Nd}]--[\u0e33\u0eb3]]+")
_GRAPHEME = _compiled(r"\X")
# Signs go with the word before them, as they do between white space.
_SIGN = rf"[^{_FIRST}{_UNSPACED}]"
_PIECE = _compiled(rf"{_SIGN}*(?:{_CHARACTER}|{_FIRST}(?:[^{_UNSPACED}]*{_LATER})?){_SIGN}*")
_ETHIOPIC_SPACE = "\u1361"
_WITHOUT_JOINERS = dict.fromkeys(map(ord, _JOINERS))
_WITHOUT_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))
_DOTTED_I = "i\u0307"  # what Python makes of the Turkish capital I with a dot


@lru_cache(maxsize=4096)
def is_unspaced(character: str) -> bool:
    """Whether a character is a letter of a script that puts no space between words."""
    return _IS_UNSPACED.match(character) is not None


@lru_cache(maxsize=4096)
def _is_foreign(character: str) -> bool:
    return _IS_FOREIGN.match(character) is not None


def is_english(text: str) -> bool:
    """Whether every letter, mark and digit of a text is one of a-z, A-Z and 0-9."""
    return text.isascii() or not any(map(_is_foreign, set(text)))


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit of any script."""
    return _ANY_WORD.search(text) is not None


def split_words(text: str) -> list[str]:
    """Words as they are counted: what white space separates, signs and case kept.

    Args:
        text: of any script.

    Returns:
        The words in order; each character of a script without spaces is one.
    """
    if text.isascii():
        return text.split()
    if _ETHIOPIC_SPACE in text:
        text = text.replace(_ETHIOPIC_SPACE, " ")
    if not any(map(is_unspaced, set(text))):
        return text.split()
    return [piece for word in text.split() for piece in _PIECE.findall(word) or [word]]


def is_lettered(word: str) -> bool:
    """Whether a word of `split_words` begins with a letter: figures and signs do not."""
    return word[0].isalpha() or (not word.isascii() and any(map(is_unspaced, word)))


def compared_words(text: str) -> list[str]:
    """Words as texts are compared by: lower-cased runs of letters, marks and digits.

    Widths and ligatures are unified (NFKC); symbols and signs separate words.

    Args:
        text: of any script.

    Returns:
        The words in order; each character of a script without spaces is one.
    """
    if is_english(text):
        return list(_ENGLISH_WORD.findall(text.lower()))
    words = _WORD.findall(_lowered(text))
    return [word.translate(_WITHOUT_JOINERS) for word in words]


def loose_words(text: str) -> list[str]:
    """The same with underscores, superscripts and fractions: what `re` takes for words too."""
    return list(_LOOSE_WORD.findall(_lowered(text)))


def symbols(text: str) -> list[str]:
    """Every character of a text that is no white space: for texts without any word."""
    unified = unicodedata.normalize("NFC", text).translate(_WITHOUT_SELECTORS)
    return [one for one in _GRAPHEME.findall(unified) if not one.isspace()]


def _lowered(text: str) -> str:
    if text.isascii():
        return text.lower()
    if not unicodedata.is_normalized("NFKC", text):
        text = _LETTERS.sub(lambda run: unicodedata.normalize("NFKC", run[0]), text)
    return text.lower().replace(_DOTTED_I, "i")
