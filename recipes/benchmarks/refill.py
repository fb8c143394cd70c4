# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""What would new prompts in the place of ended rows gain? Steps and rows of decoding, counted.

    python -m recipes.benchmarks.refill TOKENIZER TEXTS.jsonl.gz [--key summary] [--longest 100]

Lengths of responses are those of real texts. Nothing is decoded: a step is one pass of the decoder
over the rows of its batch, which is what a GPU waits for; a row of a step is what a CPU computes.
"""

import argparse
import gzip
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

SIZES = ((64, 16), (128, 32), (512, 64), (512, 128), (512, 512))
"""Responses of an iteration, and how many are written together."""
REFILL_AT = 0.75
"""New prompts are read when no more than this part of the batch goes on."""


def in_batches(lengths: Sequence[int], batch_size: int) -> tuple[int, int]:
    """Steps, and rows of all steps, batch after batch; one is halved when half of it has ended.

    Args:
        lengths: tokens of each response.
        batch_size: rows that are written together.

    Returns:
        Steps and rows.
    """
    steps = rows = 0
    for begin in range(0, len(lengths), batch_size):
        batch = lengths[begin : begin + batch_size]
        size = len(batch)
        for step in range(1, max(batch) + 1):
            steps, rows = steps + 1, rows + size
            going = sum(length > step for length in batch)
            size = going if 2 * going <= size else size
    return steps, rows


def refilled(lengths: Sequence[int], batch_size: int) -> tuple[int, int]:
    """The same where the places of ended rows are taken by the next prompts."""
    waiting = list(reversed(lengths))
    going: list[int] = []
    steps = rows = size = 0
    while waiting or going:
        if len(going) <= REFILL_AT * size or not going:
            while waiting and len(going) < batch_size:
                going.append(waiting.pop())
            size = len(going)
        steps, rows = steps + 1, rows + size
        going = [left - 1 for left in going if left > 1]
    return steps, rows


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", help="folder or id")
    parser.add_argument("texts", type=Path, help="JSON lines, gzip")
    parser.add_argument("--key", default="summary", help="field of a text")
    parser.add_argument("--longest", type=int, default=100, help="tokens of a response at most")
    return parser.parse_args()


def main() -> None:
    """Print one line a size."""
    given = arguments()
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    with gzip.open(given.texts, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)[given.key] for line in lines]
    known = [min(len(tokenizer(text).input_ids), given.longest) for text in texts]
    print(f"{statistics.mean(known):.1f} tokens, deviation {statistics.pstdev(known):.1f}")
    for count, batch_size in SIZES:
        lengths = random.Random(0).choices(known, k=count)
        steps, rows = in_batches(lengths, batch_size)
        less, fewer = refilled(lengths, batch_size)
        print(
            f"{count} responses, {batch_size} together: {steps} -> {less} steps "
            f"({steps / less:.2f}x), {rows / sum(lengths):.2f} -> {fewer / sum(lengths):.2f} "
            "rows a token"
        )


if __name__ == "__main__":
    main()
