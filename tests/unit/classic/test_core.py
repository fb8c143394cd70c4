"""The free functions of the old interface, against slow or hand-worked versions."""

import random

import numpy as np
import pytest
import torch

from lora_detox.classic import (
    LengthSampler,
    logprobs_from_logits,
    masked_mean,
    masked_var,
    masked_whiten,
    respond_to_batch,
    set_seed,
    whiten,
)
from lora_detox.classic.core import entropy_from_logits
from tests.unit.classic.programs import policy, quiet_trainer, some_queries

VALUES = torch.tensor([[1.0, 2.0, 7.0], [4.0, 5.0, 9.0]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 0]])


def test_set_seed():
    def draws():
        set_seed(5)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draws() == draws()


def test_length_sampler():
    set_seed(0)
    sampler = LengthSampler(2, 5)
    drawn = [sampler() for _ in range(100)]
    assert set(drawn) == {2, 3, 4}
    set_seed(0)
    assert drawn == [sampler() for _ in range(100)]
    with pytest.raises(ValueError, match="no integer"):
        LengthSampler(5, 5)


def test_numpy_integers_work_as_max_new_tokens():
    trainer = quiet_trainer(policy())
    row = trainer.generate(some_queries()[0], max_new_tokens=np.int64(3), do_sample=False)
    assert row.shape == (1, 7)


def test_respond_to_batch():
    set_seed(0)
    queries = torch.stack(some_queries((4, 4)))
    model = policy()
    assert respond_to_batch(model, queries).shape == (2, 20)
    answers = respond_to_batch(model, queries, txt_len=5, top_k=1)
    assert answers.shape == (2, 5)
    ids = queries
    for _ in range(5):  # top-1 is greedy
        ids = torch.cat([ids, model(ids)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(answers, ids[:, 4:])
    assert respond_to_batch(model, queries, txt_len=2, top_p=0.5).shape == (2, 2)


def test_logprobs_from_logits():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 4, 2], [1, 1, 3]])
    full = logprobs_from_logits(logits, labels, gather=False)
    torch.testing.assert_close(full.exp().sum(-1), torch.ones(2, 3))
    taken = logprobs_from_logits(logits, labels)
    for row in range(2):
        for t in range(3):
            assert taken[row, t] == full[row, t, labels[row, t]]
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy_from_logits(logits), entropy)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_masked_mean(dtype):
    mask = MASK.to(dtype)
    assert masked_mean(VALUES, mask) == 3.0
    assert masked_mean(VALUES, mask, axis=1).tolist() == [1.5, 4.5]
    assert masked_mean(VALUES, mask, axis=0)[:2].tolist() == [2.5, 3.5]


def test_masked_var():
    kept = VALUES[:, :2].flatten()
    torch.testing.assert_close(masked_var(VALUES, MASK), kept.var())
    torch.testing.assert_close(masked_var(VALUES, MASK, unbiased=False), kept.var(correction=0))
    one_dimensional = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert masked_var(one_dimensional, torch.tensor([0.0, 1.0, 1.0, 0.0])) == 0.5
    with pytest.raises(ValueError, match="mask is empty"):
        masked_var(VALUES, torch.zeros_like(MASK))


@pytest.mark.parametrize("shift_mean", [True, False])
def test_masked_whiten_and_whiten(shift_mean):
    kept = VALUES[:, :2]
    white = masked_whiten(VALUES, MASK, shift_mean=shift_mean)
    torch.testing.assert_close(white[:, :2], whiten(kept, shift_mean=shift_mean))
    assert (white[:, 2] == 0).all()
    torch.testing.assert_close(white[:, :2].var(), torch.tensor(1.0))
    mean = 0.0 if shift_mean else float(kept.mean())
    torch.testing.assert_close(white[:, :2].mean(), torch.tensor(mean), atol=1e-6, rtol=1e-5)
