"""Which output of a classifier is the civil one: by name, never by position alone.

Hub classifiers disagree on the order (nothate/hate, toxic/neutral, LABEL_0/LABEL_1), and a reward
with the wrong sign trains hate (TRL issue 117).
"""

import re
from collections.abc import Mapping

from lora_detox.errors import ScorerError

# Compared without case, spaces, hyphens and underscores.
_CIVIL = (
    "nothate nonhate nothateful nonhateful nothatespeech nohate neutral nontoxic nottoxic notoxic "
    "civil clean normal none acceptable ok okay safe benign harmless nonoffensive notoffensive "
    "inoffensive nonabusive notabusive notinsult noinsult polite respectful"
)
_TOXIC = (
    "hate hateful hatespeech toxic toxicity offensive offense abusive abuse insult insulting "
    "obscene profanity harassment harmful unsafe unacceptable uncivil dirty threat "
    "identityattack severetoxic severetoxicity"
)
CIVIL_NAMES = frozenset(_CIVIL.split())
TOXIC_NAMES = frozenset(_TOXIC.split())
_MULTI_LABEL_TOXIC = ("toxicity", "toxic")


def list_labels(id2label: Mapping[int, str]) -> str:
    """All labels with their indices, for messages."""
    return ", ".join(f"{index}={name}" for index, name in sorted(id2label.items()))


def civil_label_index(
    id2label: Mapping[int, str], wanted: str | int | None = None, *, key: str = "reward"
) -> int:
    """Index of the civil label of a softmax head.

    Args:
        id2label: output -> label name.
        wanted: the civil label by name (case is no difference) or by index; None finds it by
            known names, with two labels also as the other one of a known toxic name.
        key: settings group of the scorer, for messages.

    Returns:
        The index of the civil label.

    Raises:
        ScorerError: if there is no such label, or none or several look civil.
    """
    if wanted is not None:
        return _find_label(id2label, wanted, key)
    civil = [index for index, name in id2label.items() if _plain(name) in CIVIL_NAMES]
    if len(civil) == 1:
        return civil[0]
    toxic = [index for index, name in id2label.items() if _plain(name) in TOXIC_NAMES]
    if not civil and len(id2label) == 2 and len(toxic) == 1:
        return next(index for index in id2label if index not in toxic)
    raise ScorerError(
        f"which label is civil is unclear: the labels are {list_labels(id2label)}; name the civil "
        f"one, or give its index, with `{key}.label`"
    )


def toxic_label_indices(
    id2label: Mapping[int, str], wanted: str | int | None = None, *, key: str = "reward"
) -> tuple[int, ...]:
    """Indices of the toxic labels of a sigmoid (multi-label) head.

    Args:
        id2label: output -> label name.
        wanted: one toxic label by name or index; None takes `toxicity` or `toxic` where there is
            one, else every label with a known toxic name.
        key: settings group of the scorer, for messages.

    Returns:
        One or more indices; the largest probability among them is the toxicity.

    Raises:
        ScorerError: if there is no such label, or none looks toxic.
    """
    if wanted is not None:
        return (_find_label(id2label, wanted, key),)
    for plain in _MULTI_LABEL_TOXIC:
        named = [index for index, name in id2label.items() if _plain(name) == plain]
        if named:
            return (named[0],)
    toxic = tuple(index for index, name in id2label.items() if _plain(name) in TOXIC_NAMES)
    if not toxic:
        raise ScorerError(
            f"which label is toxic is unclear: the labels are {list_labels(id2label)}; name one, "
            f"or give its index, with `{key}.label`"
        )
    return toxic


def is_sigmoid_head(id2label: Mapping[int, str], problem_type: str | None) -> bool:
    """True where labels do not exclude each other, so that a softmax over them means nothing."""
    return problem_type == "multi_label_classification" or len(id2label) == 1


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find_label(id2label: Mapping[int, str], wanted: str | int, key: str) -> int:
    named = [i for i, name in id2label.items() if name.lower() == str(wanted).lower()]
    plain = [i for i, name in id2label.items() if _plain(name) == _plain(str(wanted))]
    for found in (named, plain):
        if len(found) == 1 and not isinstance(wanted, int):
            return found[0]
    if str(wanted).isdigit() and int(wanted) in id2label:
        return int(wanted)
    raise ScorerError(
        f"no label `{wanted}`: the labels are {list_labels(id2label)}; change `{key}.label`"
    )
