"""Where the tokens of some rows are, found once: whoever asks a GPU for a size waits for it.

Selecting by a Boolean mask makes the host wait for the number of results. The places are taken from
the masks in the first pass over the rows, and later passes select by them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Of B rows; N response tokens in all, row by row.

    Attributes:
        queries: columns of the queries that are not padding in every row.
        responses: the same of the responses, C of them.
        inside: place of each token in the flattened [B, C].
        places: place of each token in the flattened [B, R].
        positions: index of each token in its response, from 0.
        shape: B and R.
    """

    queries: slice
    responses: slice
    inside: Int[Tensor, "N"]
    places: Int[Tensor, "N"]
    positions: Int[Tensor, "N"]
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, query_mask: Bool[Tensor, "B Q"], response_mask: Bool[Tensor, "B R"]
    ) -> "TokenLayout":
        """Of rows whose real tokens are True in the masks."""
        queries, responses = _columns(query_mask), _columns(response_mask)
        rows, columns = response_mask.nonzero(as_tuple=True)
        width = responses.stop - responses.start
        return cls(
            queries=queries,
            responses=responses,
            inside=rows * width + columns - responses.start,
            places=rows * response_mask.shape[1] + columns,
            positions=columns,
            shape=(response_mask.shape[0], response_mask.shape[1]),
        )

    def states(self, hidden: Float[Tensor, "B C H"]) -> Float[Tensor, "N H"]:
        """States behind the tokens."""
        return hidden.flatten(0, 1).index_select(0, self.inside)

    def ids(self, response_ids: Int[Tensor, "B R"]) -> Int[Tensor, "N"]:
        """Ids of the tokens."""
        return response_ids.flatten().index_select(0, self.places)

    def unpack(self, *packed: Float[Tensor, "N"]) -> tuple[Float[Tensor, "B R"], ...]:
        """Packed numbers back at their places, 0 at padding, gradient kept; all of them at once."""
        together = torch.stack(packed)
        flat = together.new_zeros(len(packed), self.shape[0] * self.shape[1])
        return flat.index_copy_(1, self.places, together).view(-1, *self.shape).unbind()


def _columns(mask: Bool[Tensor, "B T"]) -> slice:
    """From the first to the last column with a real token."""
    used = mask.any(dim=0).nonzero()[:, 0].tolist()
    return slice(used[0], used[-1] + 1) if used else slice(0, 0)
