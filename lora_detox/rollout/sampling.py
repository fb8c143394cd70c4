"""Draw responses token by token; what is drawn does not depend on how rows are batched."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lora_detox.errors import DivergenceError
from lora_detox.progress import advance
from lora_detox.types import Policy, Sampling

BLOCK = 256
"""Tokens whose probabilities are summed before the draw looks at single ones."""


def sample_responses(
    policy: Policy,
    query_ids: Int[Tensor, "B Q"],
    query_mask: Bool[Tensor, "B Q"],
    sampling: Sampling,
    max_new_tokens: Int[Tensor, "B"],
    uniforms: Float[Tensor, "B R"],
) -> tuple[Int[Tensor, "B R"], Bool[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Write a response to each query with a key-value cache.

    A row ends with an end token (kept: it is an action) or at its own `max_new_tokens`. When
    half of the rows have ended, the batch is compacted to those that go on.

    Args:
        policy: whose distribution is drawn from.
        query_ids: padded on the side that the policy's family needs.
        query_mask: True at real tokens.
        sampling: the distribution, or its argmax if `greedy`.
        max_new_tokens: bound of each row, 1 to R.
        uniforms: one number in [0, 1) for each token that may be drawn, by row; the token is the
            inverse of the cumulative distribution there, so a row's response depends only on its
            own numbers.

    Returns:
        Response ids (padding filled with `pad_token_id`), the mask of sampled tokens, made from
        lengths, and the log-probability that each token was drawn with (0 at padding).

    Raises:
        DivergenceError: logits that are NaN or infinite, which are no distribution.
    """
    most = int(max_new_tokens.max())
    session = policy.decoding(query_ids, query_mask, sampling, most)
    response_ids = torch.full_like(uniforms, policy.pad_token_id, dtype=torch.long)
    logprobs = torch.zeros(uniforms.shape, device=uniforms.device)
    lengths = torch.zeros_like(max_new_tokens)
    rows = torch.arange(len(query_ids), device=query_ids.device)  # rows still in the session
    going = torch.ones_like(rows, dtype=torch.bool)
    ends = torch.tensor(policy.eos_token_ids, device=query_ids.device)
    token_ids: Tensor | None = None
    for position in range(most):
        logits = session.next_logits(token_ids)
        log_p = logits.log_softmax(dim=-1)
        token_ids = draw(log_p, uniforms[rows, position], greedy=sampling.greedy)
        # Rows that have ended write padding: selecting those that go on would make the host wait.
        response_ids[rows, position] = torch.where(going, token_ids, policy.pad_token_id)
        drawn_with = log_p.gather(-1, token_ids[:, None])[:, 0]
        logprobs[rows, position] = torch.where(going, drawn_with, 0.0).to(logprobs.dtype)
        lengths[rows] += going
        going = going & ~torch.isin(token_ids, ends) & (position + 1 < max_new_tokens[rows])
        count = int(going.sum())
        advance(len(query_ids) / most)
        if count == 0:
            break
        if 2 * count <= len(rows):
            session.keep(going.nonzero()[:, 0])
            rows, token_ids = rows[going], token_ids[going]
            going = going[going]
    _check_finite(logprobs)
    mask = torch.arange(uniforms.shape[1], device=lengths.device)[None] < lengths[:, None]
    return response_ids, mask, logprobs


def _check_finite(logprobs: Float[Tensor, "B R"]) -> None:
    """Raise DivergenceError where the numbers that tokens were drawn with are none."""
    if not bool(logprobs.isfinite().all()):
        raise DivergenceError(
            "the policy's logits are NaN or infinite, so that no token can be drawn: training left "
            "the region where its numbers mean anything; lower algorithm.learning_rate"
        )


def draw(
    log_p: Float[Tensor, "B V"], uniform: Float[Tensor, "B"], *, greedy: bool
) -> Int[Tensor, "B"]:
    """The token at which the cumulative distribution passes `uniform`, or the likeliest one.

    A token of probability 0 is never drawn. Sums are taken in fp64, as fp32 loses the tail of a
    vocabulary of 50,000; first over blocks of tokens, then within the block that is hit.

    Args:
        log_p: log-probabilities of the tokens; of NaN some token is drawn.
        uniform: one number in [0, 1) for each row.
        greedy: take the likeliest.

    Returns:
        Token ids.
    """
    if greedy:
        return log_p.argmax(dim=-1)
    probabilities = functional.pad(log_p.exp(), (0, -log_p.shape[-1] % BLOCK))
    blocks = probabilities.unflatten(-1, (-1, BLOCK))
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    block, rest = _hit(ends, uniform.double() * ends[:, -1])
    within = blocks[torch.arange(len(block), device=block.device), block].double().cumsum(dim=-1)
    offset, _ = _hit(within, rest)
    return (block * BLOCK + offset).clamp(max=log_p.shape[-1] - 1)


def _hit(ends: Float[Tensor, "B N"], target: Float[Tensor, "B"]) -> tuple[Tensor, Tensor]:
    """The interval of a running sum that holds `target`, never an empty one, and how far in."""
    target = target.clamp(max=torch.nextafter(ends[:, -1], torch.zeros_like(target)))
    index = torch.searchsorted(ends, target[:, None], right=True)
    index = index.clamp(max=ends.shape[-1] - 1)  # a running sum of NaN holds nothing
    before = functional.pad(ends, (1, 0)).gather(-1, index)
    return index[:, 0], target - before[:, 0]
