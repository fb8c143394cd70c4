"""Masked statistics. No flag but two functions: `whiten` centres, `scale_only` does not."""

from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-8


def masked_mean(x: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"]) -> Float[Tensor, ""]:
    """Mean over the true positions of the mask; 0 if there is none."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def masked_variance(x: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"]) -> Float[Tensor, ""]:
    """Unbiased variance over the true positions (Bessel's correction); 0 for fewer than two."""
    count = mask.sum()
    squares = ((x - masked_mean(x, mask)) ** 2 * mask).sum()
    return squares / (count - 1).clamp(min=1)


def whiten(x: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Masked mean 0 and variance 1; 0 outside the mask."""
    scaled = (x - masked_mean(x, mask)) * (masked_variance(x, mask) + EPSILON).rsqrt()
    return scaled * mask


def scale_only(x: Float[Tensor, "B R"], mask: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Masked variance 1, mean kept in proportion; 0 outside the mask."""
    return x * (masked_variance(x, mask) + EPSILON).rsqrt() * mask
