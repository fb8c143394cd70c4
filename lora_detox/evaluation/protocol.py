"""The numbers of each evaluation protocol, and the sets that it asks about."""

from dataclasses import dataclass, replace
from pathlib import Path

from lora_detox.builders.rows import data_groups, load_data
from lora_detox.choices import Protocol
from lora_detox.prompts import PromptRow
from lora_detox.prompts.naming import naming_set
from lora_detox.prompts.splits import choose_rows
from lora_detox.settings import DataSettings, Settings
from lora_detox.types import Sampling


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """How a protocol asks.

    Attributes:
        prompts: prompts of each set, at most.
        samples: responses per prompt (k).
        response_tokens: bound on new tokens, from and to.
        sampling: how tokens are drawn.
    """

    prompts: int
    samples: int
    response_tokens: tuple[int, int]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """One set of prompts.

    Attributes:
        role: `in_distribution`, or the name in `evaluation.sets`.
        name: last part of the path that its test prompts are read from, as the tables show it.
        data: the settings that it was read with.
        rows: chosen prompts.
        wanted: how many were asked for.
        read: what was read and left out, one line.
    """

    role: str
    name: str
    data: DataSettings
    rows: list[PromptRow]
    wanted: int
    read: str


def protocol_numbers(settings: Settings) -> Numbers:
    """The numbers of the protocol, where the settings do not name others.

    trl_guide: 400 prompts, 30 new tokens (TRL's detoxification guide). real_toxicity_prompts:
    25 continuations of 20 tokens, nucleus sampling with p = 0.9 (Gehman et al. 2020).

    Args:
        settings: composed and checked.

    Returns:
        The numbers.
    """
    evaluation, generation = settings.evaluation, settings.generation
    prompts, samples = evaluation.test_prompts, evaluation.samples_per_prompt
    low, high = generation.response_tokens
    sampling = Sampling(
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        min_new_tokens=generation.min_new_tokens,
        greedy=evaluation.greedy,
    )
    if evaluation.protocol is Protocol.trl_guide:
        prompts, samples, low, high = 400, 1, 30, 30
    elif evaluation.protocol is Protocol.real_toxicity_prompts:
        samples, low, high = 25, 20, 20
        sampling = replace(sampling, top_p=0.9)
    elif evaluation.protocol is Protocol.three_sets:
        samples = 1
    if evaluation.new_tokens:
        low = high = evaluation.new_tokens
    return Numbers(
        prompts=evaluation.prompts or prompts,
        samples=evaluation.samples or samples,
        response_tokens=(low, high),
        sampling=sampling,
    )


def prompt_sets(settings: Settings, numbers: Numbers) -> list[PromptSet]:
    """Read the sets of the protocol.

    The set of `data` gives its test split, which training never reads. The further sets of
    three_sets are out of distribution, so where their test split is too small the other splits
    help out.

    Args:
        settings: composed and checked.
        numbers: of the protocol.

    Returns:
        The set of `data` first.
    """
    read = []
    for role, prefix, data in data_groups(settings):
        with naming_set(prefix, f"data@{prefix}"):
            loaded = load_data(replace(settings, data=data))
        rows = list(loaded.test)
        if role != "in_distribution" and len(rows) < numbers.prompts:
            rows += choose_rows([*loaded.validation, *loaded.train], numbers.prompts - len(rows), 0)
        chosen = choose_rows(rows, numbers.prompts, 0)
        read.append(
            PromptSet(
                role=role,
                name=_short_name(data.test_path or data.path),
                data=data,
                rows=chosen,
                wanted=numbers.prompts,
                read=loaded.report.describe(),
            )
        )
    return read


def _short_name(path: str) -> str:
    name = Path(path.removeprefix("embedded:")).name
    for suffix in (".gz", ".jsonl", ".json", ".csv", ".parquet"):
        name = name.removesuffix(suffix)
    return name
