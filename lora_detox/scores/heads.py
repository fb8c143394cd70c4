"""How the outputs of a classifier are read: score and toxicity out of raw logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lora_detox.errors import ScorerError
from lora_detox.scores.labels import list_labels

ScoreOutput = Literal["logit", "softmax", "logprob", "sigmoid"]
_SOFTMAX_OUTPUTS = ("logit", "softmax", "logprob")
_SIGMOID_OUTPUTS = ("logit", "sigmoid", "logprob")


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
