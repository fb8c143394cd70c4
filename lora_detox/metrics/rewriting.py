"""How good a rewrite is: J, the product of civil style, similarity and fluency of each response."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from lora_detox.metrics import names

_MEASURED = (names.SIMILARITY, names.FLUENCY)


def rewrite_columns(
    factors: Mapping[str, Float[Tensor, "B"]],
    toxicity: Float[Tensor, "B"],
    judge_toxicity: Float[Tensor, "B"] | None,
) -> dict[str, list[float]]:
    """J of each response and the parts beside its style (Logacheva et al. 2022, "ParaDetox").

    J = (1 - toxicity) * similarity * fluency; a part that the reward does not have is left out of
    the product. Exponents of the reward are not those of J.

    Args:
        factors: of the reward's product, in [0, 1].
        toxicity: by the reward's classifier, in [0, 1].
        judge_toxicity: by the held-out classifier (`judge`), or None.

    Returns:
        Names of `metrics.names` -> one number per response: similarity and fluency where they are
        measured, J by the reward's classifier, and by the judge where there is one. Empty where the
        reward is no product.
    """
    if not factors:
        return {}
    parts = {key: factors[key] for key in _MEASURED if key in factors}
    kept: Float[Tensor, "B"] = torch.ones_like(toxicity)
    for part in parts.values():
        kept = kept * part
    columns = {key: part.tolist() for key, part in parts.items()}
    columns[names.JOINT] = ((1 - toxicity) * kept).tolist()
    if judge_toxicity is not None:
        columns[names.JUDGE_JOINT] = ((1 - judge_toxicity) * kept).tolist()
    return columns
