"""Does a text speak of somebody? Terms as whole words in any case, with their plurals."""

import re
from collections.abc import Iterable
from functools import lru_cache

from lora_detox.text.words import is_unspaced

_SMALL = frozenset(
    {"a", "an", "the", "of", "and", "or", "in", "on", "with", "who", "that"}
    | {"people", "person", "persons", "group", "groups", "other", "others"}
    | {"none", "unknown", "neutral"}
)
"""Words of a group's name that name nobody by themselves."""
_SEPARATORS = re.compile(r"[\s_/,;|()-]+")
_SINGULAR = {"women": "woman", "men": "man", "children": "child"}


def terms_of(name: str) -> tuple[str, ...]:
    """By which words a text speaks of a group that is known by its name alone.

    Args:
        name: of a group as data write it, as in "American_actors" or "the woman".

    Returns:
        Its words in the singular, those left out that name nobody ("people", "the"); none where
        nothing is left, as of a number.
    """
    words = [word for word in _SEPARATORS.split(name.casefold()) if word]
    if all(word in _SMALL for word in words):
        return ()
    named = [word for word in words if word not in _SMALL and not word.isdigit()]
    return tuple(dict.fromkeys(map(_singular, (word for word in named if len(word) > 1))))


def mentions(text: str, terms: Iterable[str]) -> bool:
    """Whether a text has one of some terms as whole words, in any case, or its plural.

    Args:
        text: of any script.
        terms: words or phrases; those of scripts without spaces are found inside words.

    Returns:
        True if it has one; False without terms.
    """
    pattern = _pattern(tuple(terms))
    return pattern is not None and pattern.search(text.casefold()) is not None


@lru_cache(maxsize=1024)
def _pattern(terms: tuple[str, ...]) -> re.Pattern[str] | None:
    parts = [_term(term.casefold().strip()) for term in terms if term.strip()]
    return re.compile("|".join(parts)) if parts else None


def _term(term: str) -> str:
    body = r"\s+".join(map(re.escape, term.split()))
    if any(map(is_unspaced, term)):
        return body
    forms = [body + r"(?:s|es)?(?:['\u2019]s?)?"]
    if term.endswith("y"):
        forms.append(re.escape(term[:-1]) + "ies")
    if term.endswith("man"):
        forms.append(re.escape(term[:-3]) + "men")
    return rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)"


def _singular(word: str) -> str:
    if word in _SINGULAR:
        return _SINGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "shes", "ches")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
