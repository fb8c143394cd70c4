"""What type a key of the schema has."""

from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin

from lora_detox.settings.groups import Settings


def type_of_key(key: str) -> Any:
    """The annotation of a dotted key, as `list[str]` or `float | None`; None for no such key."""
    node: Any = Settings
    for name in key.split("."):
        if get_origin(node) is dict:
            node = get_args(node)[1]
        elif is_dataclass(node):
            node = {entry.name: entry.type for entry in fields(node)}.get(name)
        else:
            return None
    return node


def holds(annotation: Any, kind: type) -> bool:
    """Whether values of a type may be of a kind: `list[int] | None` of list, int and NoneType."""
    if annotation is Any or annotation is None:
        return False
    if annotation is kind or get_origin(annotation) is kind:
        return True
    if kind is dict and is_dataclass(annotation):
        return True
    return any(holds(part, kind) for part in get_args(annotation))
