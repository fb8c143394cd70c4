"""The slope over the length by hand, that it goes, and that what is said at a length stays paid."""

import math

import pytest
import torch

from lora_detox.advantages import LengthCorrection
from lora_detox.advantages.length_correction import PRIOR

WORDS = [1, 3, 7, 15] * 250
LOGS = torch.tensor(WORDS, dtype=torch.float32).log1p()  # ln 2, 2 ln 2, 3 ln 2, 4 ln 2


def test_a_score_that_is_length_alone_becomes_flat():
    one = LengthCorrection()
    one.observe(5 - 2 * LOGS, WORDS)
    shrunk = 1000 / (1000 + PRIOR)
    assert one.slope == pytest.approx(-2 * shrunk, rel=1e-4)
    left = one(5 - 2 * LOGS, WORDS)
    assert float(left.max() - left.min()) == pytest.approx(
        3 * math.log(2) * 2 * (1 - shrunk), abs=1e-3
    )
    assert float(left.mean()) == pytest.approx(5 - 2 * 2.5 * math.log(2), rel=1e-4)


def test_what_does_not_depend_on_length_is_left():
    said = torch.tensor([1.0, -1.0]).repeat(500)
    one = LengthCorrection()
    words = [4, 4, 9, 9] * 250
    one.observe(said, words)
    torch.testing.assert_close(one(said, words), said)


def test_a_small_first_rollout_moves_little_and_one_length_nothing():
    one = LengthCorrection()
    one.observe(torch.tensor([0.0, 1.0]), [1, 3])
    assert 0 < one.slope < 2 / PRIOR / math.log(2)
    same = LengthCorrection()
    same.observe(torch.tensor([0.0, 1.0]), [5, 5])
    assert same.slope == 0.0


def test_off_leaves_scores_alone():
    off = LengthCorrection(enabled=False)
    off.observe(LOGS, WORDS)
    assert off(LOGS, WORDS) is LOGS


def test_old_rollouts_fade_and_a_checkpoint_holds_all():
    one = LengthCorrection(decay=0.5)
    for _ in range(30):
        one.observe(-LOGS, WORDS)
    for _ in range(30):
        one.observe(LOGS, WORDS)
    assert one.slope > 0.9
    other = LengthCorrection(decay=0.5)
    other.restore(one.state())
    torch.testing.assert_close(other(LOGS, WORDS), one(LOGS, WORDS), rtol=0, atol=0)


def test_nothing_is_known_before_two_responses():
    one = LengthCorrection()
    assert one.slope == 0.0
    score = torch.tensor([1.0, 2.0])
    assert one(score, [1, 3]) is score
    one.observe(torch.tensor([3.0]), [2])
    assert one.slope == 0.0


def test_a_switched_off_one_that_knows_something_leaves_scores_alone():
    one = LengthCorrection()
    one.observe(LOGS, WORDS)
    off = LengthCorrection(enabled=False, sums=list(one.sums))
    assert off(LOGS, WORDS) is LOGS


def test_silence_alone_is_a_mean_length_too():
    """Each response had no word: the mean of log(1 + words) is 0, and known."""
    one = LengthCorrection(sums=[100.0, 0.0, 0.0, 50.0, 25.0])
    assert one.slope == pytest.approx(0.5 * 100 / 150)
    assert one(torch.tensor([1.0]), [1]).tolist() == pytest.approx([1 - one.slope * math.log(2)])


def test_scores_keep_their_number_format():
    one = LengthCorrection()
    one.observe(LOGS, WORDS)
    assert one(LOGS.half(), WORDS).dtype == torch.float16
