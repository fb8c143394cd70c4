"""Settings -> rows of prompts, without PyTorch; and what their first rows show to be wrong."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from lora_detox.builders.audit import check_audit_heads
from lora_detox.builders.labelled import check_labelled_heads
from lora_detox.builders.toxic_examples import check_example_heads
from lora_detox.choices import DecodingKind, Protocol, Stage, TaskKind
from lora_detox.prompts import PromptSets, load_prompt_sets
from lora_detox.prompts.load import check_prompt_heads
from lora_detox.prompts.naming import naming_set
from lora_detox.settings import DataSettings, Settings

_KEYS = (
    "path",
    "validation_path",
    "test_path",
    "config_name",
    "split_names",
    "fields",
    "columns",
    "min_toxicity",
    "max_toxicity",
    "turns",
    "encoding",
    "delimiter",
    "skip",
    "prefixes",
    "split_fractions",
    "limit",
    "bad_row_limit",
    "max_line_mb",
    "max_total_mb",
)
_PROMPTS = (Stage.detox, Stage.soup, Stage.sft, Stage.plan, Stage.evaluate)
_AUDITED = (Stage.detox, Stage.soup, Stage.evaluate)
_OF_EXAMPLES = (DecodingKind.bad_words, DecodingKind.direction, DecodingKind.projection)


def load_data(settings: Settings) -> PromptSets:
    """Read, filter and split the prompts as conf/data says."""
    data = settings.data
    return load_prompt_sets(**_arguments(settings), revision=data.revision, cache=data.cache)


def data_groups(settings: Settings) -> Iterator[tuple[str, str, DataSettings]]:
    """Groups of data that a stage reads prompts from.

    Args:
        settings: composed and checked.

    Yields:
        Role of the set, its key in the settings, and the group; `data` first, which is the
        in-distribution set of the protocol three_sets.
    """
    yield "in_distribution", "data", settings.data
    three = settings.evaluation.protocol is Protocol.three_sets
    if settings.stage is Stage.evaluate and three:
        for role, data in settings.evaluation.sets.items():
            yield role, f"evaluation.sets.{role}", data


def check_heads(settings: Settings) -> None:
    """Find wrong columns and unreadable files by their first rows, before PyTorch is imported.

    The full check comes when the rows are read; data of the hub is left to it.

    Args:
        settings: composed and checked.

    Raises:
        DataError: as the stage itself would raise it.
    """
    stage, decoding = settings.stage, settings.decoding
    for _, key, data in data_groups(settings) if stage in _PROMPTS else ():
        with naming_set(key, f"data@{key}"):
            check_prompt_heads(**_arguments(replace(settings, data=data)))
    if stage is Stage.reward_model:
        check_labelled_heads(settings)
    if stage in _AUDITED:
        check_audit_heads(settings)
    if stage is Stage.evaluate and decoding.name in _OF_EXAMPLES and decoding.words is None:
        check_example_heads(decoding.examples, decoding.fields, "decoding")


def _arguments(settings: Settings) -> dict[str, Any]:
    """What decides which prompts a stage reads."""
    data = asdict(settings.data)
    if data["min_toxicity"] is None and data["max_toxicity"] is None:
        data["fields"]["toxicity"] = None  # only the filter reads it
    if settings.task.kind is TaskKind.continuation and settings.stage is not Stage.sft:
        data["fields"]["references"] = None  # there is no ROUGE to take
    return {key: data[key] for key in _KEYS} | {"seed": settings.data.split_seed}
