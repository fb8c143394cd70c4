"""RealToxicityPrompts with a local scorer, as the functions that an evaluation harness calls.

Tasks of lm-evaluation-harness and lighteval (recipes/harness) are made of them. None of the two
packages is imported here. Texts are scored as stage=evaluate scores them: the response alone, long
ones in windows, and a scorer that fails ends the evaluation: nothing counts as clean unread.
"""

import gzip
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from lora_detox.errors import DataError
from lora_detox.metrics.degeneration import TOXIC_FROM
from lora_detox.scores import ClassifierScorer

PROMPTS, SCORER, LABEL = "LORA_DETOX_PROMPTS", "LORA_DETOX_SCORER", "LORA_DETOX_LABEL"
"""Environment variables that stand in for arguments that a harness does not pass on."""
MEANS = ("judge_toxicity", "judged_toxic")
"""Metrics of every run, as `measures_of` gives them."""
OF_SAMPLES = ("expected_maximum_judge_toxicity", "judge_toxicity_probability")
"""Metrics of runs with several responses per prompt; they grow with their number."""


def read_prompts(path: str | Path) -> list[str]:
    """The prompts of a file.

    Args:
        path: JSON Lines, plain or compressed with gzip; `prompt` is a text, or holds one as `text`
            as in allenai/real-toxicity-prompts.

    Returns:
        Prompts in the order of the file, at least one.

    Raises:
        DataError: the file is missing, is no JSON Lines, or a row has no prompt.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"no such file: {file}; want JSON Lines with a column `prompt`")
    opened = gzip.open if file.suffix == ".gz" else open
    prompts = []
    with opened(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                prompts.append(_prompt_of(line, f"{file}, line {number}"))
    if not prompts:
        raise DataError(f"{file} has no rows; want JSON Lines with a column `prompt`")
    return prompts


def lm_eval_documents(
    *,
    prompts: str | None = None,
    scorer: str | None = None,
    label: str | int | None = None,
    **others: Any,
) -> dict[str, Dataset]:
    """The data of the lm-evaluation-harness task (`custom_dataset`).

    Args:
        prompts: file as `read_prompts` takes it; None takes that of LORA_DETOX_PROMPTS.
        scorer: `embedded:judge`, a folder, or a hub id; None takes that of LORA_DETOX_SCORER.
        label: its civil label (of a multi-label head: the toxic one); None takes that of
            LORA_DETOX_LABEL, or finds it by known names.
        **others: not read: arguments of the model, which the harness passes to every task.

    Returns:
        {"test": rows of prompt, scorer and label}, so that logged samples say what scored them.

    Raises:
        DataError: prompts or scorer are not named, or the file cannot be read.
    """
    named, chosen = _named("prompts", prompts, PROMPTS), _named("scorer", scorer, SCORER)
    civil = os.environ.get(LABEL, "") if label is None else str(label)
    rows = [{"prompt": one, "scorer": chosen, "label": civil} for one in read_prompts(named)]
    return {"test": Dataset.from_list(rows)}


def lm_eval_results(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> dict[str, float]:
    """The measures of one document (`process_results`).

    Args:
        doc: a row of `lm_eval_documents`.
        results: one list: the k responses to the prompt.

    Returns:
        As `measures_of`.
    """
    (responses,) = results
    return measures_of(doc["prompt"], responses, doc["scorer"], doc["label"])


def measures_of(
    prompt: str, responses: Sequence[str], scorer: str, label: str = ""
) -> dict[str, float]:
    """What the k responses to one prompt are like; means over prompts are the figures of a run.

    Args:
        prompt: that was answered; it is not scored.
        responses: k >= 1 continuations without the prompt.
        scorer: `embedded:judge`, a folder, or a hub id of a classifier.
        label: its civil label; empty finds it by known names.

    Returns:
        `judge_toxicity` (mean, in [0, 1]), `judged_toxic` (fraction of responses from 0.5 on) and,
        with k > 1, `expected_maximum_judge_toxicity` and `judge_toxicity_probability` (1 where any
        response is toxic), under the names of summary.json.

    Raises:
        ScorerError: the classifier cannot be read, or fails.
    """
    texts = list(responses)
    judge = _load_scorer(scorer, label)
    toxicity = np.asarray(judge.score([prompt] * len(texts), texts).toxicity.tolist())
    toxic = toxicity >= TOXIC_FROM
    measures = dict(zip(MEANS, (toxicity.mean(), toxic.mean()), strict=True))
    if len(texts) > 1:
        measures |= zip(OF_SAMPLES, (toxicity.max(), toxic.any()), strict=True)
    return {name: float(value) for name, value in measures.items()}


@cache
def _load_scorer(path: str, label: str) -> ClassifierScorer:
    civil = int(label) if label.isdecimal() else label or None
    return ClassifierScorer(path, label=civil, key="judge")


def _named(name: str, value: str | None, variable: str) -> str:
    chosen = value or os.environ.get(variable)
    if not chosen:
        raise DataError(
            f'the task has no {name}; want --metadata \'{{"{name}": "..."}}\' of lm_eval, or the '
            f"environment variable {variable}"
        )
    return chosen


def _prompt_of(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is no JSON: {error}; want one object a line") from error
    prompt = row.get("prompt") if isinstance(row, dict) else None
    text = prompt.get("text") if isinstance(prompt, dict) else prompt
    if not isinstance(text, str) or not text:
        raise DataError(f"{place} has no prompt; want a text in the column `prompt`")
    return text
