"""What a study minimises: toxicity, and lost quality."""

from collections.abc import Mapping

from lora_detox.metrics import names

_QUALITIES = (names.PERPLEXITY, names.JOINT, names.ROUGEL)
"""Of continuations, rewrites and summaries."""

Point = tuple[float, float]
"""Toxicity and lost quality, both to be minimised."""


def objective_measures(means: Mapping[str, float]) -> tuple[str, str | None]:
    """Which measures the objectives are.

    Args:
        means: measures of a run.

    Returns:
        The judge's toxicity, or the reward's where there is no judge; and the quality, None where
        none was measured.
    """
    toxicity = names.JUDGE_TOXICITY if names.JUDGE_TOXICITY in means else names.TOXICITY
    return toxicity, next((key for key in _QUALITIES if key in means), None)


def objectives(means: Mapping[str, float]) -> Point:
    """The two numbers; a quality of which more is better has a minus.

    Args:
        means: measures of a run, toxicity among them.

    Returns:
        Toxicity, and perplexity or minus ROUGE-L or J; 0 where no quality was measured.
    """
    toxicity, quality = objective_measures(means)
    lost = 0.0 if quality is None else means[quality] * quality_sign(quality)
    return means[toxicity], lost


def quality_sign(quality: str) -> int:
    """-1 where more of a quality is better, else 1."""
    return -1 if names.METRICS[quality].better == names.Better.HIGHER else 1


def dominates(one: Point, other: Point) -> bool:
    """Whether a point is as good as another in both objectives and better in one."""
    return one[0] <= other[0] and one[1] <= other[1] and one != other
