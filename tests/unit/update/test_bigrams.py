"""What a word adds to distinct-2: by hand, against the measure itself, and over rollouts."""

import json

import pytest
import torch

from lora_detox.metrics.diversity import distinct_n
from lora_detox.update import Bound, Budget, Constraint, NewBigrams, PenaltyTerm
from tests.unit.advantages.test_advantages import mask_of, rollout_of


def words_at(*rows):
    """True at the columns where a word begins."""
    begins = torch.zeros(len(rows), 6, dtype=torch.bool)
    for row, columns in enumerate(rows):
        begins[row, list(columns)] = True
    return begins


def test_new_pairs_of_words_are_paid_at_the_end_of_their_second_word():
    texts = ["the cat sat", "the cat ran off"]
    begins = words_at([0, 1, 3], [0, 1, 2, 3])  # "cat" of the first has two tokens, "sat" three
    added = NewBigrams()(texts, begins, _mask(6, 4))
    new, mean, scale = 1.0, 3 / 5, 2 / 5  # "the cat" is there twice; three of five pairs are new
    expected = torch.zeros(2, 6)
    expected[0, 2] = (0 - mean) * scale
    expected[0, 5] = (new - mean) * scale
    expected[1, 1] = (0 - mean) * scale
    expected[1, 2] = expected[1, 3] = (new - mean) * scale
    torch.testing.assert_close(added, expected)
    assert float(added.sum()) == pytest.approx(0.0, abs=1e-6), "the mean response earns nothing"


def _mask(*lengths):
    columns = torch.arange(6)
    return torch.stack([columns < length for length in lengths])


def test_who_earns_most_adds_most_to_distinct_2():
    texts = ["a b c d", "a b c e", "u v w x"]
    begins = words_at(*[range(4)] * 3)
    earned = NewBigrams()(texts, begins, _mask(4, 4, 4)).sum(dim=1).tolist()
    whole = distinct_n(texts, 2)
    without = [distinct_n(texts[:i] + texts[i + 1 :], 2) for i in range(3)]
    assert earned[0] == pytest.approx(earned[1])
    assert earned[2] > earned[0]
    assert whole - without[2] > whole - without[0]


def test_pairs_of_earlier_rollouts_are_not_new_and_old_ones_are_forgotten():
    begins, mask = words_at([0, 1], [0, 1]), _mask(2, 2)
    seen = NewBigrams(responses=4)
    pairs = [["a b", "c d"], ["a b", "e f"], ["g h", "a b"], ["c d", "i j"]]
    earned = [(seen(texts, begins, mask)[:, 1] > 0).tolist() for texts in pairs]
    assert earned[0] == [False, False]  # all are new, so that none is above the mean
    assert earned[1] == [False, True]
    assert earned[2] == [True, False]  # of the rollout before alone: four responses in all
    assert earned[3] == [False, False]
    alone = NewBigrams(responses=1)
    assert [(alone(texts, begins, mask)[:, 1] > 0).any() for texts in pairs[:2]] == [False, False]


def test_a_checkpoint_holds_what_was_seen():
    begins, mask = words_at([0, 1], [0, 1]), _mask(2, 2)
    seen, restored = NewBigrams(), NewBigrams()
    seen(["a b", "c d"], begins, mask)
    restored.restore(json.loads(json.dumps(seen.state())))
    texts = ["c d", "e f"]
    assert torch.equal(seen(texts, begins, mask), restored(texts, begins, mask))


def test_texts_without_a_pair_and_words_that_tokens_do_not_show():
    assert not NewBigrams()(["", "one"], words_at([0], [0]), _mask(1, 1)).any()
    # Two words where no token begins a second one: what they add is paid at the last token.
    added = NewBigrams()(["x y", "a b c"], words_at([0], [0, 2]), _mask(3, 4))
    other = NewBigrams()(["x y x y", "a b c"], words_at([0], [0, 2]), _mask(3, 4))
    assert added[0].nonzero().numel() == 0  # all three pairs are new
    assert other[0, :2].any().item() is False
    assert float(other[0, 2]) < 0 < float(other[1, 3])


def test_the_multiplier_weighs_them_and_entropy_earns_nothing():
    bound = Bound(measure="distinct_2", above=False, allowed=0.0)
    held = Constraint(bound=bound, term=PenaltyTerm.BIGRAMS, gain=1.0, start=0.9, multiplier=2.0)
    mask = mask_of(4, 2, 5)
    rollout = rollout_of(mask)
    new = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    bonus = Budget([held], []).token_bonus(rollout, new_bigrams=new)
    torch.testing.assert_close(bonus, 2.0 * new)
    assert not Budget([held], []).token_bonus(rollout).any()
