"""Values for the keys of the settings: sensible, at the edge, and of other types."""

import os
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hypothesis import strategies as st

from lora_detox.ranges import range_of
from lora_detox.settings import Settings, known_keys

DRAWS = int(os.environ.get("LORA_DETOX_DRAWS", "500"))
"""How many configurations are drawn; 5,000 for the figure in docs/faults.md."""
TRAINED = int(os.environ.get("LORA_DETOX_TRAINED", "30"))
"""How many of those that pass the checks are trained at most."""

UNTOUCHED = ("run_dir", "stage", "debug.tiny_model", "device", "resume")
"""What the tests set themselves: where a run goes, and that its policy is tiny."""
SMALL = {
    "threads": 2,
    "algorithm.iterations": 2,
    "algorithm.rollout_batch_size": 8,
    "algorithm.minibatch_size": 8,
    "algorithm.ppo_epochs": 2,
    "algorithm.responses_per_prompt": 8,
    "evaluation.validation_prompts": 4,
    "evaluation.test_prompts": 4,
    "evaluation.samples_per_prompt": 2,
    "evaluation.validation_samples": 2,
    "evaluation.resamples": 50,
    "guard.retries": 2,
    "budget.controller.start_rollouts": 3,
    "adapter.rank": 16,
    "generation.min_new_tokens": 6,
}
"""Most that is drawn of what makes a run long."""
EDGES = (0, 1, -1, 2, 0.0, 1.0, 0.5, 1e-12, -0.5, 1e9, 2**31, 2**63, float("inf"), float("nan"))
WORDS = ("", " ", "null", "x", "[", "{prompt}", "a\x00b", "é", "../..", "-1", "\u202e", "a" * 300)
OTHER_TYPES: tuple[Any, ...] = (None, True, "word", -3, 0.25, [], [1], ["a", None], {}, {"a": 1})


def type_and_range(key: str) -> tuple[Any, Any]:
    """Annotation and range of a key."""
    node: Any = Settings
    entry = None
    for name in key.split("."):
        entry = next(one for one in fields(node) if one.name == name)
        node = entry.type
    return node, None if entry is None else range_of(entry)


def _of_type(annotation: Any, wanted: Any, most: float | None) -> st.SearchStrategy[Any]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return st.none()
    if origin in (Union, UnionType):
        return st.one_of(*(_of_type(one, wanted, most) for one in inner))
    if annotation is bool:
        return st.booleans()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from([one.value for one in annotation])
    if annotation in (int, float):
        return _numbers(annotation, wanted, most)
    if annotation is str:
        return st.sampled_from(WORDS) | st.text(max_size=6)
    if origin is list:
        return st.lists(_of_type(inner[0] if inner else str, wanted, most), max_size=4)
    return st.sampled_from(OTHER_TYPES)


def _numbers(kind: type, wanted: Any, most: float | None) -> st.SearchStrategy[Any]:
    """Numbers in the range, about as often as at and beyond its edges."""
    low = -4.0 if wanted is None else max(wanted.least, -100.0)
    high = 8.0 if wanted is None else min(wanted.most, 64.0)
    high = high if most is None else min(high, most)
    inside = (
        st.integers(int(low), int(high)) if kind is int else st.floats(low, high, allow_nan=False)
    )
    edges = [one for one in EDGES if most is None or not one > most]
    return inside | inside | st.sampled_from([one for one in edges if kind is float or one == one])


def values_for(key: str) -> st.SearchStrategy[Any]:
    """Values for a key: mostly of its type, one in six of any other."""
    annotation, wanted = type_and_range(key)
    right = _of_type(annotation, wanted, SMALL.get(key))
    others = [
        one
        for one in OTHER_TYPES
        if key not in SMALL or not isinstance(one, (int, float)) or one <= SMALL[key]
    ]
    return st.integers(0, 5).flatmap(
        lambda draw: right if draw else st.sampled_from(others) | st.sampled_from(WORDS)
    )


KEYS = sorted(
    key for key in known_keys() if key not in UNTOUCHED and not is_dataclass(type_and_range(key)[0])
)
configurations = st.dictionaries(st.sampled_from(KEYS), st.none(), min_size=1, max_size=5).flatmap(
    lambda keys: st.fixed_dictionaries({key: values_for(key) for key in keys})
)
"""One to five keys with values."""
