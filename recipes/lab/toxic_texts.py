# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Toxic texts as prompts with their continuations: what a toxic LoRA is fine-tuned on.

    python -m recipes.lab.toxic_texts LABELLED.jsonl OUT.jsonl [--seed 0] [--limit N]
    python -m lora_detox stage=sft task=gptj_continuation data=local data.path=OUT.jsonl ...

LABELLED has a text and a label (1 is toxic) on each line: the half that the reward's classifier
learned from, never the judge's. Texts of 8 to 60 words are taken; the prompt is their first 8 to 15
words (10 to 20 tokens), at most half of them, and the continuation is the rest, with the space
before it.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from lora_detox.report.jsonl import write_text_atomic

WORDS = (8, 60)
"""Least and most words of a text."""
PROMPT_WORDS = (8, 15)
"""Least and most words of a prompt, drawn; of a short text half its words."""


def split_text(text: str, draw: random.Random) -> tuple[str, str] | None:
    """A text as prompt and continuation, which together are the text again.

    Args:
        text: white space around it is left out.
        draw: of the number of words.

    Returns:
        Both parts, the second with its white space; None where the text is too short or too long.
    """
    text = text.strip()
    ends = [word.end() for word in re.finditer(r"\S+", text)]
    if not WORDS[0] <= len(ends) <= WORDS[1]:
        return None
    place = ends[min(draw.randint(*PROMPT_WORDS), len(ends) // 2) - 1]
    return text[:place], text[place:]


def continuations(file: Path, seed: int) -> Iterator[dict[str, str]]:
    """Rows for stage=sft out of the toxic texts of a file.

    Args:
        file: JSONL with `text` and `label`.
        seed: of the lengths of prompts.

    Yields:
        `prompt` and `references`, one row for each text.

    Raises:
        SystemExit: a line without text or label.
    """
    draw = random.Random(seed)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if "text" not in row or "label" not in row:
            raise SystemExit(f"{file}, line {number}: got {sorted(row)}; want text and label")
        parts = split_text(row["text"], draw) if float(row["label"]) >= 0.5 else None
        if parts is not None:
            yield {"prompt": parts[0], "references": parts[1]}


def main() -> None:
    """Read the command line, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labelled", type=Path, help="JSONL with text and label, of the reward")
    parser.add_argument("out", type=Path, help="JSONL with prompt and references")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most so many rows, drawn")
    given = parser.parse_args()
    rows = list(continuations(given.labelled, given.seed))
    if not rows:
        raise SystemExit(f"{given.labelled}: got no toxic text of {WORDS[0]} to {WORDS[1]} words")
    random.Random(given.seed).shuffle(rows)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[: given.limit]]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(given.out, "".join(lines))
    print(f"{given.out}: {len(lines)} of {len(rows)} toxic texts of {given.labelled}")


if __name__ == "__main__":
    main()
