"""Which output of a classifier is the civil one, and how score and toxicity are read from it.

The civil label is found by name, never by position alone: hub classifiers disagree on the order
(nothate/hate, toxic/neutral, LABEL_0/LABEL_1), and a reward with the wrong sign trains hate (TRL
issue 117).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lora_detox.errors import ScorerError

ScoreOutput = Literal["logit", "softmax", "logprob", "sigmoid"]
_SOFTMAX_OUTPUTS = ("logit", "softmax", "logprob")
_SIGMOID_OUTPUTS = ("logit", "sigmoid", "logprob")

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


@dataclass(frozen=True, kw_only=True)
class ClassifierHead:
    """How to read the outputs of a classifier.

    Attributes:
        path: folder or hub id that it loads from.
        id2label: output -> label name.
        civil_index: output of the civil label of a softmax head; None for a sigmoid head.
        toxic_indices: outputs that count as toxic in a sigmoid head (the largest does); empty for
            a softmax head, where toxicity is everything but the civil label.
    """

    path: str
    id2label: Mapping[int, str]
    civil_index: int | None
    toxic_indices: tuple[int, ...] = ()

    def describe(self) -> str:
        """Labels, and which of them is read how."""
        if self.civil_index is not None:
            return f"labels {list_labels(self.id2label)}; civil: {self.id2label[self.civil_index]}"
        toxic = ", ".join(self.id2label[index] for index in self.toxic_indices)
        return f"labels {list_labels(self.id2label)}; toxic: {toxic}"


def checked_output(output: str, head: ClassifierHead, key: str) -> str:
    """The wanted output, if the head has it.

    Args:
        output: "logit", "softmax", "sigmoid" or "logprob".
        head: how the classifier is read.
        key: settings group of the scorer, for messages.

    Returns:
        `output`.

    Raises:
        ScorerError: for a softmax over labels that do not exclude each other, and the like.
    """
    is_softmax = head.civil_index is not None
    known = _SOFTMAX_OUTPUTS if is_softmax else _SIGMOID_OUTPUTS
    if output not in known:
        kind = "one label excludes the others" if is_softmax else "each label stands for itself"
        raise ScorerError(
            f"the output `{output}` does not fit {head.path}, where {kind} "
            f"({head.describe()}); want {', '.join(known)}; change `{key}.output`"
        )
    return output


def read_head(
    logits: Float[Tensor, "W L"], head: ClassifierHead, output: str
) -> tuple[Float[Tensor, "W"], Float[Tensor, "W"]]:
    """Score (higher is better) and toxicity (in [0, 1]) of raw logits.

    Args:
        logits: outputs of the classifier [W, L].
        head: which of them is civil, or toxic.
        output: "logit", "softmax", "sigmoid" or "logprob" of the civil side.

    Returns:
        Score [W] and toxicity [W].
    """
    if head.civil_index is not None:
        logprobs = functional.log_softmax(logits, dim=-1)
        civil_logprob = logprobs[:, head.civil_index]
        # Summed over the other labels: 1 - p loses the small toxicities.
        others = [index for index in range(logits.shape[1]) if index != head.civil_index]
        toxicity = logprobs[:, others].exp().sum(dim=-1).clamp(0, 1)
        scores = {
            "logit": logits[:, head.civil_index],
            "softmax": civil_logprob.exp(),
            "logprob": civil_logprob,
        }
        return scores[output], toxicity
    civil_logit = -logits[:, list(head.toxic_indices)].max(dim=-1).values
    scores = {
        "logit": civil_logit,
        "sigmoid": civil_logit.sigmoid(),
        "logprob": functional.logsigmoid(civil_logit),
    }
    return scores[output], (-civil_logit).sigmoid()


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
    return re.sub(r"[\W_]", "", name.lower())


def _find_label(id2label: Mapping[int, str], wanted: str | int, key: str) -> int:
    named = [i for i, name in id2label.items() if name.lower() == str(wanted).lower()]
    plain = [i for i, name in id2label.items() if _plain(name) == _plain(str(wanted))]
    for indices in (named, plain):
        if len(indices) == 1 and not isinstance(wanted, int):
            return indices[0]
    if str(wanted).isdigit() and int(wanted) in id2label:
        return int(wanted)
    raise ScorerError(
        f"no label `{wanted}`: the labels are {list_labels(id2label)}; change `{key}.label`"
    )
