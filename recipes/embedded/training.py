"""Training loop of the embedded models: padded batches of similar length, AdamW, cosine decay."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Token ids and what to predict: target ids (t5), the ids themselves (gptj) or a label."""

    ids: list[int]
    target: list[int]


@dataclass(frozen=True)
class Schedule:
    """Training length and learning rate."""

    optimizer_steps: int
    examples_per_step: int
    peak_lr: float
    warmup_steps: int = 100
    weight_decay: float = 0.01


def pad(rows: list[list[int]], value: int) -> Tensor:
    """Right-pads rows to the longest one."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def batches(examples: list[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches; those of one batch have a similar length, batches come in random order."""
    rng, bucket = random.Random(seed), 16 * size
    while True:
        order = rng.sample(range(len(examples)), len(examples))
        for start in range(0, len(order), bucket):
            chunk = [examples[i] for i in order[start : start + bucket]]
            chunk.sort(key=lambda example: (len(example.ids), len(example.target)))
            groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            rng.shuffle(groups)
            yield from groups


def to_batch(examples: list[Example], family: str) -> Batch:
    """Model arguments for a batch of a "seq2seq", "causal" or "classifier" model."""
    input_ids = pad([example.ids for example in examples], 0)
    mask = pad([[1] * len(example.ids) for example in examples], 0)
    batch = {"input_ids": input_ids, "attention_mask": mask}
    if family == "seq2seq":
        batch["labels"] = pad([example.target for example in examples], IGNORED)
    elif family == "causal":
        batch["labels"] = input_ids.masked_fill(mask == 0, IGNORED)
    else:
        batch["labels"] = torch.tensor([example.target[0] for example in examples])
    return batch


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < schedule.warmup_steps:
        return schedule.peak_lr * (step + 1) / schedule.warmup_steps
    span = max(1, schedule.optimizer_steps - schedule.warmup_steps)
    progress = (step - schedule.warmup_steps) / span
    return schedule.peak_lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    model: nn.Module,
    examples: list[Example],
    family: str,
    schedule: Schedule,
    log: Callable[[str], None],
) -> None:
    """Trains a model in place with AdamW and gradient clipping at 1."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.peak_lr, betas=(0.9, 0.98))
    stream = batches(examples, schedule.examples_per_step, seed=0)
    model.train()
    running = 0.0
    for step in range(schedule.optimizer_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, schedule)
        loss = model(**to_batch(next(stream), family)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running += loss.item()
        if (step + 1) % 100 == 0:
            log(f"step {step + 1}/{schedule.optimizer_steps} loss {running / 100:.4f}")
            running = 0.0
    model.eval()
