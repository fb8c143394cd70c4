"""Keys of earlier versions, and where each of them went."""

from collections.abc import Iterable

_EXPERT = (
    "microbatch_tokens",
    "weight_decay",
    "gamma",
    "value_clip_range",
    "value_coef",
    "value_learning_rate",
    "ratio_threshold",
    "target_kl",
    "score_clip",
    "whiten_rewards",
    "whiten_advantages",
    "baseline_decay",
    "length_gain",
    "length_damping",
)
_CONTROLLER = ("gain", "damping", "smoothing", "start_rollouts", "distinct_2_gain")

RENAMED = {
    **{f"algorithm.{key}": f"algorithm.expert.{key}" for key in _EXPERT},
    **{f"budget.{key}": f"budget.controller.{key}" for key in _CONTROLLER},
    "algorithm.kl_control": "algorithm.kl.control",
    "algorithm.kl_coef": "algorithm.kl.coef",
    "algorithm.kl_target": "algorithm.kl.target",
    "algorithm.kl_horizon": "algorithm.kl.horizon",
    "algorithm.kl_penalty": "algorithm.kl.charge",
    "algorithm.kl_place": "algorithm.kl.charge (loss is k3_loss, reward one of the others)",
    "algorithm.kl_level": "algorithm.action (sequence is response)",
    "algorithm.scale_scores": "algorithm.score_norm (false is none, true is scale or whiten)",
    "algorithm.center_scores": "algorithm.score_norm (true is whiten, false is scale)",
    "algorithm.group_std": "algorithm.baseline (true is group_zscore, false is group_mean)",
    "algorithm.credit_every": "algorithm.expert.prefix_credit_every",
    "algorithm.length_target": "budget.words (1.0 is [1.0,null])",
    "algorithm.length_both_ways": "budget.words (true is [1.0,1.0], false is [1.0,null])",
    "algorithm.length_neutral": "reward.length_debias",
    "budget.aim": "budget.controller.margin (1 minus the old value)",
    "budget.result": "budget.ship",
    "budget.interpolate": "budget.fallback",
}
"""Old key -> the new one, with what became of its values where these changed."""


def renamed(keys: Iterable[str]) -> list[str]:
    """A sentence for each old key.

    Args:
        keys: dotted, as on a command line; known ones are passed over.

    Returns:
        "OLD: renamed to NEW", in their order.
    """
    return [f"{key}: renamed to {RENAMED[key]}" for key in keys if key in RENAMED]
