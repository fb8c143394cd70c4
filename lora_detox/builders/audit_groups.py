"""Whom prompts are about, by the columns that their rows carry."""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_detox.builders.audit import MENTIONS, NAMING, group_of
from lora_detox.embedded.identities import GROUPS
from lora_detox.metrics.fairness import GroupedPrompts
from lora_detox.text.mentions import terms_of


def grouped(rows: Sequence[Mapping[str, Any]], names: str) -> GroupedPrompts | None:
    """Whom prompts are about, by the columns that their rows carry.

    Args:
        rows: columns of B prompts.
        names: `evaluation.audit_group`.

    Returns:
        Group and terms of each; None where no row names a group.
    """
    groups = [group_of(row, names) for row in rows]
    if not any(groups):
        return None
    return GroupedPrompts(groups=groups, terms=[_terms(row, names) for row in rows])


def _terms(columns: Mapping[str, Any], names: str) -> tuple[str, ...]:
    """By which words a text speaks of the row's group: its own, or those of the group's name."""
    given = columns.get(MENTIONS)
    if given:
        listed = given if isinstance(given, list) else str(given).split("|")
        return tuple(str(one).strip() for one in listed if str(one).strip())
    known = [group_of(columns, one) for one in (names.split("|", maxsplit=1)[0], *NAMING)]
    named = [word for name in dict.fromkeys(filter(None, known)) for word in terms_of(name)]
    for group in GROUPS:  # whose other words are known
        if any(word in group.mentions for word in named):
            named += group.mentions
    return tuple(dict.fromkeys(named))
