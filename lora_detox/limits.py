"""What counts as collapse: the limits that the collapse guard checks, as settings hold them."""

from dataclasses import dataclass

from lora_detox.ranges import fraction, positive


@dataclass(kw_only=True)
class CollapseLimits:
    """Limits of the collapse guard; None leaves a sign unchecked. "Start" is the first rollout.

    Attributes:
        kl: most KL to the reference (k3), nats per response.
        ratio: mean probability ratio of an update, above it or below its inverse.
        entropy: least entropy, as a fraction of the start's.
        entropy_rise: most entropy, as a multiple of the start's.
        perplexity: most perplexity under the reference, as a multiple of the start's.
        length: least mean response length, as a fraction of the start's.
        distinct_2: least distinct-2, as a fraction of the start's.
        repetition: most that the fraction of repeated 3-grams may rise, 0 to 1.
        reward_rise: standard deviations of the score by which it must have risen before the
            held-out classifier (`judge`) has to follow.
        judge_fall: least fraction by which the judge's toxicity must have fallen then.
    """

    kl: float | None = positive(None, "nats per response")
    ratio: float | None = positive(None)
    entropy: float | None = fraction(None)
    entropy_rise: float | None = positive(None)
    perplexity: float | None = positive(None)
    length: float | None = fraction(None)
    distinct_2: float | None = fraction(None)
    repetition: float | None = fraction(None)
    reward_rise: float | None = positive(None, "standard deviations")
    judge_fall: float = fraction(0.1)
