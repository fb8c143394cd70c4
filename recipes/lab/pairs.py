"""Pairs of a toxic sentence and its civil rewrite that only the reward's half has."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from lora_detox.report.jsonl import write_text_atomic


def in_reward_half(text: str) -> bool:
    """Whether the labelled texts of the reward hold a text, and those of the judge do not."""
    return int(hashlib.sha1(text.encode()).hexdigest(), 16) % 2 == 0


def pairs(file: Path) -> Iterator[dict[str, str]]:
    """Pairs of ParaDetox whose both sides are in the reward's half.

    Args:
        file: `toxic`, and one to three rewrites in `neutral`.

    Yields:
        `toxic` and `neutral`.
    """
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            civil = [text for text in row["neutral"][:2] if in_reward_half(text)]
            if in_reward_half(row["toxic"]) and civil:
                yield {"toxic": row["toxic"], "neutral": civil[0]}


def write_pairs(source: Path, target: Path) -> Path:
    """Write them where they are missing.

    Args:
        source: paradetox.pairs.jsonl.gz.
        target: JSONL of them.

    Returns:
        The target.
    """
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in pairs(source))
        write_text_atomic(target, "".join(lines))
    return target
