"""The sentiment tasks: what their defaults compare and bind, and that every method takes them."""

import pytest
import torch

from lora_detox.__main__ import conf_dir
from lora_detox.advantages import estimate_advantages
from lora_detox.api import compose_settings
from lora_detox.builders.controls import budget_of
from lora_detox.builders.training import plan_of
from tests.unit.advantages.test_advantages import mask_of, rollout_of

METHODS = sorted(path.stem for path in (conf_dir() / "algorithm").glob("*.yaml"))
MASK = mask_of(4, 2, 5, 1, 3, 3, 4, 5)
SCORE = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 1.5, -1.0, 2.0])
OF_THE_PROMPT = torch.tensor([5.0] * 4 + [-5.0] * 4)
"""What a score earns by the prefix of its prompt alone, whatever the response."""


def advantages_of(score, *overrides):
    settings = compose_settings(["task=sentiment_control", *overrides])
    plan = plan_of(settings, torch.float32).advantages
    return estimate_advantages(rollout_of(MASK), score, 0.1, plan).advantages


def test_control_learns_nothing_from_what_the_prefix_alone_earns():
    turned = advantages_of(SCORE + OF_THE_PROMPT)
    torch.testing.assert_close(turned, advantages_of(SCORE), rtol=0, atol=1e-5)
    assert turned.abs().max() > 1
    moved = advantages_of(SCORE + OF_THE_PROMPT, "algorithm=ppo") - advantages_of(
        SCORE, "algorithm=ppo"
    )
    assert moved[:4][MASK[:4]].mean() > 0.5 > -0.5 > moved[4:][MASK[4:]].mean()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", ["imdb_sentiment", "sentiment_control"])
def test_every_method_takes_the_task(task, method):
    settings = compose_settings([f"task={task}", f"algorithm={method}"])
    assert settings.algorithm.name == method


def test_positive_endings_are_bound_in_perplexity_and_control_in_nothing():
    bounds = {
        task: budget_of(compose_settings([f"task={task}"]), references=False).bounds
        for task in ("imdb_sentiment", "sentiment_control")
    }
    assert bounds["sentiment_control"] == {}
    (bound,) = bounds["imdb_sentiment"].values()
    assert bound.measure == "perplexity"
    assert bound.limit(2.0) == pytest.approx(2.2)
