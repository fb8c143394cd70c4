"""The digest that proves a backbone unchanged sees every name and every bit."""

import hashlib

import torch

from lora_detox.policy.checksum import checksum

WEIGHTS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor(1.5, dtype=torch.bfloat16),
    "c": torch.tensor([1, -2], dtype=torch.int8),
}


def test_the_digest_by_hand_whatever_the_order_and_the_layout():
    whole = hashlib.blake2b(digest_size=16)
    for name in "abc":
        raw = WEIGHTS[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        whole.update(name.encode() + b"\0" + hashlib.blake2b(raw, digest_size=16).digest())
    assert checksum(WEIGHTS) == whole.hexdigest()
    assert checksum(dict(reversed(WEIGHTS.items()))) == whole.hexdigest()
    strided = {**WEIGHTS, "b": WEIGHTS["b"].t().contiguous().t()}
    assert checksum(strided) == whole.hexdigest()


def test_one_bit_one_name_and_one_tensor_more_are_seen():
    start = checksum(WEIGHTS)
    flipped = WEIGHTS["b"].clone()
    flipped.view(torch.uint8)[1, 5] ^= 1
    others = (
        {**WEIGHTS, "b": flipped},
        {("d" if name == "c" else name): weight for name, weight in WEIGHTS.items()},
        {**WEIGHTS, "d": torch.zeros(0)},
        {**WEIGHTS, "a": WEIGHTS["b"], "b": WEIGHTS["a"]},
    )
    assert len({start, *map(checksum, others)}) == 1 + len(others)
