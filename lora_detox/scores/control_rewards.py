"""Rewards that know nothing of tone: the controls of a comparison.

What falls under them, training as such or the choice of a state did, and not the reward. They have
TRL's signature and stand in `reward.function`; toxicity is measured by the classifier beside them.
"""

import hashlib
from statistics import NormalDist
from typing import Any

from lora_detox.text.words import split_words

CONSTANT = "lora_detox.scores.control_rewards:constant"
"""`reward.function` of the control under which nothing is to be learned."""
_DIGITS = 2**64


def constant(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """0 for every response.

    Args:
        prompts: B prompt texts.
        completions: B response texts.
        **columns: not read.

    Returns:
        B zeros.
    """
    return [0.0] * len(completions)


def words(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """How many words a response has.

    Args:
        prompts: B prompt texts.
        completions: B response texts.
        **columns: not read.

    Returns:
        B numbers of words, at least 0.
    """
    return [float(len(split_words(completion))) for completion in completions]


def noise(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """A normal number for each response, always the same for the same text.

    Args:
        prompts: B prompt texts.
        completions: B response texts.
        **columns: not read.

    Returns:
        B numbers of mean 0 and deviation 1 over many texts.
    """
    return [_normal(completion) for completion in completions]


def _normal(text: str) -> float:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return NormalDist().inv_cdf((int.from_bytes(digest) + 0.5) / (_DIGITS + 1))
