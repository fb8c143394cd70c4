"""Which words of a response say what others say too: distinct-2, token by token."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lora_detox.text.words import split_words

RESPONSES = 600
"""So many responses are looked through for the same bigram, those of earlier rollouts among them:
in a hundred alone one bigram in thirteen is there twice, in six hundred one in six."""


class NewBigrams:
    """What each word adds to distinct-2, which is unique bigrams / all bigrams (Li et al. 2016).

    A pair of words that stands nowhere else, in no other response nor again in its own, adds 1 to
    the first number, a pair that is there already adds nothing; each adds 1 to the second.

    Args:
        responses: how many are looked through, at least; the rollout is, whatever its size.
    """

    def __init__(self, responses: int = RESPONSES) -> None:
        self._responses = responses
        self._before: deque[tuple[int, list[str]]] = deque()

    def __call__(
        self, texts: Sequence[str], begins: Bool[Tensor, "B R"], mask: Bool[Tensor, "B R"]
    ) -> Float[Tensor, "B R"]:
        """What each token adds; the rollout is among the earlier ones from now on.

        Args:
            texts: B responses.
            begins: True at tokens that begin a word.
            mask: True at real tokens.

        Returns:
            At the last token of a bigram 1 where it is new and 0 else, minus the mean over the
            rollout, divided by the bigrams of a mean response; 0 at other tokens.
        """
        bigrams = [list(map(" ".join, pairwise(split_words(text)))) for text in texts]
        here = list(chain.from_iterable(bigrams))
        seen = Counter(chain(here, *(earlier for _, earlier in self._before)))
        self._remember(len(texts), here)
        added = torch.zeros(mask.shape)
        if not here:
            return added.to(mask.device)
        mean = sum(seen[pair] == 1 for pair in here) / len(here)
        begins, real = begins.cpu(), mask.cpu()  # once, not a row at a time
        for row, pairs in enumerate(bigrams):
            ends = _word_ends(begins[row], real[row])
            for place, pair in enumerate(pairs, start=1):
                added[row, ends[min(place, len(ends) - 1)]] += (seen[pair] == 1) - mean
        return (added * (len(texts) / len(here))).to(mask.device)

    def _remember(self, responses: int, pairs: list[str]) -> None:
        """Keep the newest rollouts that make up the number with the next one of this size."""
        self._before.append((responses, pairs))
        while self._before and sum(n for n, _ in self._before) + responses > self._responses:
            self._before.popleft()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"before": [[n, pairs] for n, pairs in self._before]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state of a checkpoint."""
        self._before = deque((n, list(pairs)) for n, pairs in state["before"])


def _word_ends(begins: Bool[Tensor, "R"], mask: Bool[Tensor, "R"]) -> list[int]:
    """The last token of each word; the first token begins one whatever it is."""
    length = max(1, int(mask.sum()))
    starts = (begins[1:length].nonzero()[:, 0] + 1).tolist()
    return [start - 1 for start in starts] + [length - 1]
