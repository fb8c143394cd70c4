"""What "it learns" means in a test, on any processor.

Two checks. After one small step on given responses the liked ones must have become likelier than
the others: to first order that is a theorem, so the sign does not hang on rounding. And over whole
runs from several seeds the fraction of liked tokens must rise more than chance explains, since a
processor that rounds differently gives other runs, each as good as the first.
"""

from collections.abc import Sequence

import torch
from scipy import stats
from torch import Tensor

from tests.tiny import VOCABULARY

CHANCE = 0.01
"""Probability that `assert_learned` passes where runs end as they began."""
STEP = 1e-4
"""Least rise of the liked responses over the others after one step, nats per token: a hundred times
what fp32 rounds away of a logprob."""


def is_liked(ids: Tensor) -> Tensor:
    """True at the liked half of the vocabulary, the even ids: about half of what is sampled."""
    return ids % 2 == 0


def liked_and_other(count: int, length: int, seed: int = 0) -> Tensor:
    """Random responses [count, length], by turns of liked tokens alone and of none."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(2, VOCABULARY // 2, (count, length), generator=generator)
    return 2 * half + (torch.arange(count) % 2)[:, None]


def assert_direction(before: Tensor, after: Tensor, liked: Tensor) -> None:
    """Liked responses became likelier than the others.

    Args:
        before: logprobs of the given responses' tokens [B, R].
        after: the same after one step.
        liked: which responses the score liked [B].
    """
    rise = (after - before).double()
    assert float(rise[liked].mean() - rise[~liked].mean()) > STEP


def assert_learned(fractions: Sequence[Sequence[float]]) -> None:
    """The fraction of liked tokens is higher in the last iterations than in the first ones.

    A rank test over independent runs (Mann and Whitney): with five runs of which each ends above
    every start its probability by chance is 1 / 252, and one pair may be the other way round.

    Args:
        fractions: of each run, by iteration.
    """
    first, last = [run[0] for run in fractions], [run[-1] for run in fractions]
    chance = stats.mannwhitneyu(last, first, alternative="greater", method="exact").pvalue
    assert chance < CHANCE, (first, last)
