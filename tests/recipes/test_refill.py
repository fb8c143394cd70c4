import random

from recipes.benchmarks.refill import in_batches, refilled


def test_in_batches_by_hand():
    # 3 and 1 tokens: two rows in the first step, half have ended, one row goes on; then 2 alone.
    assert in_batches([3, 1, 2], 2) == (3 + 2, 2 + 1 + 1 + 1 + 1)


def test_refilled_by_hand():
    # The place of the row of one token is taken by the one of two: it ends with the first.
    assert refilled([3, 1, 2], 2) == (3, 2 + 2 + 2)


def test_every_token_is_written_once_and_one_batch_needs_no_refill():
    lengths = random.Random(0).choices(range(1, 40), k=50)
    for batch_size in (1, 7, 50):
        steps, rows = in_batches(lengths, batch_size)
        less, fewer = refilled(lengths, batch_size)
        assert min(rows, fewer) >= sum(lengths)
        assert max(lengths) <= less <= steps
    assert in_batches(lengths, 50)[0] == refilled(lengths, 50)[0] == max(lengths)
    assert in_batches(lengths, 1) == (sum(lengths), sum(lengths))
