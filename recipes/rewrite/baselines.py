# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""Score texts that no model wrote: python -m recipes.rewrite.baselines JOB.json.

JOB.json holds `overrides` (of recipes/rewrite), `train` and `test` (files of pairs) and `target`, a
JSONL file that gets one row per system and test pair, as samples.jsonl of stage=evaluate has them.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lora_detox import api
from lora_detox.builders.scorers import check_scorers, load_scorers
from lora_detox.decoding.fighting_words import fighting_words
from lora_detox.metrics import names
from lora_detox.metrics.rewriting import rewrite_columns
from lora_detox.report.jsonl import write_rows
from lora_detox.types import Scorer
from recipes.rewrite.texts import Pair, read_pairs

ITSELF, DELETION, HUMAN = "the sentence itself", "word deletion", "human references"
WORDS, LEAST_RATIO = 500, 3.0
"""Words that deletion knows at most, and their odds in toxic sentences over those in civil ones."""
_SIGNS = ".,!?;:\"'()"


def toxic_words(pairs: Iterable[Pair]) -> set[str]:
    """Words that the toxic sides have and their rewrites avoid."""
    pairs = list(pairs)
    civil = [text for pair in pairs for text in pair["neutral"]]
    toxic = [pair["toxic"] for pair in pairs]
    return set(fighting_words(toxic, civil, WORDS, least_ratio=LEAST_RATIO))


def without(text: str, words: set[str]) -> str:
    """A text without some words, whatever their case and the signs around them."""
    return " ".join(word for word in text.split() if word.lower().strip(_SIGNS) not in words)


def answers(pairs: list[Pair], words: set[str]) -> dict[str, list[str]]:
    """System -> its response to each pair."""
    return {
        ITSELF: [pair["toxic"] for pair in pairs],
        DELETION: [without(pair["toxic"], words) for pair in pairs],
        HUMAN: [pair["neutral"][0] for pair in pairs],
    }


def scored(
    system: str, pairs: list[Pair], responses: list[str], reward: Scorer, judge: Scorer
) -> list[dict[str, Any]]:
    """Rows of one system, in the order of the pairs.

    Args:
        system: its name.
        pairs: what is rewritten.
        responses: by whom or whatever.
        reward: a product of style, similarity and fluency.
        judge: the held-out classifier.

    Returns:
        `model`, `source`, `response` and the measures of each.
    """
    sources = [pair["toxic"] for pair in pairs]
    scores = reward.score(sources, responses, sources=sources)
    judged = judge.score(sources, responses).toxicity
    columns = {
        names.TOXICITY: scores.toxicity.tolist(),
        names.JUDGE_TOXICITY: judged.tolist(),
        **rewrite_columns(scores.factors, scores.toxicity, judged),
    }
    return [
        {
            "model": system,
            "source": source,
            "response": responses[place],
            **{key: values[place] for key, values in columns.items()},
        }
        for place, source in enumerate(sources)
    ]


def main() -> None:
    """Score what the file asks for."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    target = Path(job["target"])
    settings = api.compose_settings(job["overrides"], target.with_name("nothing"))
    check_scorers(settings)
    reward, judge = load_scorers(settings, torch.device("cpu"))
    if judge is None:
        sys.exit("the recipe judges by a held-out classifier; name judge.path")
    pairs = read_pairs(Path(job["test"]))
    words = toxic_words(read_pairs(Path(job["train"])))
    rows = [
        row
        for system, responses in answers(pairs, words).items()
        for row in scored(system, pairs, responses, reward, judge)
    ]
    write_rows(target, rows)


if __name__ == "__main__":
    main()
