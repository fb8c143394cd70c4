"""Who samples the responses of training, and how its probabilities are reconciled with ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lora_detox.errors import RolloutError
from lora_detox.rollout import Generate, Mismatch, Responses, generate_responses, mismatch_of
from lora_detox.types import Advantages, Rollout

GAP = "sampling_gap_mean"
RATIO = "sampling_ratio"
CLIPPED = "sampling_ratio_clipped"


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Who samples.

    Attributes:
        generate: answers prompts.
        most_gap: mean gap between its and our logprobs above which a run ends, nats; None: our own
            weights drew, so that a gap is a fault.
        most_ratio: largest weight of a token.
    """

    generate: Generate = generate_responses
    most_gap: float | None = None
    most_ratio: float = 1.0

    @property
    def is_remote(self) -> bool:
        """Whether another engine draws."""
        return self.most_gap is not None

    def compare(self, iteration: int, rollout: Rollout, responses: Responses) -> Mismatch | None:
        """The gap of a rollout; one between other distributions than is trained ends the run.

        Args:
            iteration: from 0.
            rollout: with our logprobs.
            responses: with those of sampling.

        Returns:
            The gap; None where our own weights drew.

        Raises:
            RolloutError: with the gap, and what makes one.
        """
        if self.most_gap is None:
            return None
        gap = mismatch_of(rollout, responses, self.most_ratio)
        if gap.mean_gap <= self.most_gap:
            return gap
        raise RolloutError(
            f"iteration {iteration}: logprobs of the server and ours differ by {gap.mean_gap:.3g} "
            f"nats a token in the mean (largest {gap.largest_gap:.3g}), want at most "
            f"rollout.most_gap={self.most_gap:g}: it has another model or number format, no "
            "adapter, or was started without --logprobs-mode processed_logprobs (then its logprobs "
            "are before the temperature)"
        )


def weighted(advantages: Advantages, mismatch: Mismatch | None) -> Advantages:
    """Advantages times the cut ratio of our probability over the server's, token by token."""
    if mismatch is None:
        return advantages
    return replace(advantages, advantages=advantages.advantages * mismatch.weights)


def mismatch_columns(mismatch: Mismatch | None) -> Mapping[str, float]:
    """What metrics.jsonl says of the gap; nothing where our own weights drew."""
    if mismatch is None:
        return {}
    return {
        GAP: mismatch.mean_gap,
        RATIO: mismatch.mean_ratio,
        CLIPPED: mismatch.clipped,
    }
