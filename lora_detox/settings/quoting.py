"""How an override is typed so that Hydra reads the value that was meant."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lora_detox.settings.field_types import holds, type_of_key

PATH_KEYS = ("path", "adapter", "validation_path", "test_path", "run", "dir", "function")
"""Last names of keys that take a path."""
_PLAIN = re.compile(r"[A-Za-z0-9_/\\+.$%*@?|: -]")
"""What Hydra takes in a value without quotes; letters of other scripts are not among it."""


def parsed(text: str) -> Override | None:
    """An override as Hydra reads it; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def raw_value(text: str) -> str:
    """What stands behind the first `=`."""
    return text.partition("=")[2]


def in_shell(override: str) -> str:
    """As it is typed in a shell of this system."""
    return subprocess.list2cmdline([override]) if os.name == "nt" else shlex.quote(override)


def readable(text: str) -> str:
    """An override that Hydra takes, with the value that was meant."""
    if parsed(text) is not None:
        return text
    key, _, value = text.partition("=")
    wanted, stripped = type_of_key(key.lstrip("+")), value.strip()
    if value.startswith("~/"):
        return readable(f"{key}={os.path.expanduser(value)}")
    if stripped[:1] in ("[", "{") and (structure := _structure(key, stripped, wanted)):
        return structure
    if "\\" in value and key.rsplit(".", 1)[-1] in PATH_KEYS:
        slashes = value.strip("\"'").replace("\\", "/")
        return readable(f"{key}={slashes}")
    if wanted in (None, Any) or (holds(wanted, str) and not holds(wanted, list)):
        return as_text(key, value)
    return _of_type(key, stripped, wanted)


def _of_type(key: str, value: str, wanted: object) -> str:
    """An override of a key that takes no text, or a place holder where the value is no help."""
    if holds(wanted, list):
        if value.startswith("["):
            return f"{key}=[A,B]"
        return as_list(key, [part for part in re.split(r"[\s,()]+", value) if part])
    bare = f"{key}={value.strip(',; ')}"
    if parsed(bare) is not None:
        return bare
    return f"{key}={'{NAME: VALUE}' if holds(wanted, dict) else 'VALUE'}"


def _structure(key: str, value: str, wanted: object) -> str | None:
    """A list or a mapping whose texts have quotes, and whose names have `:` behind them."""
    if not (wanted is Any or holds(wanted, list) or holds(wanted, dict)):
        return None
    named = re.sub(r"([{,]\s*[\w.]+)=", r"\1: ", value)
    escaped = re.sub(r"\[([^\[\]:,]*)\](?=\s*:)", r"\\[\1\\]", named)
    for written in (named, escaped):
        if parsed(f"{key}={written}") is not None:
            return f"{key}={written}"
    try:
        rendered = f"{key}={_rendered(yaml.safe_load(named))}"
    except yaml.YAMLError:
        return None
    return rendered if parsed(rendered) is not None else None


def _rendered(node: Any) -> str:
    if isinstance(node, dict):
        return "{" + ", ".join(f"{name}: {_rendered(one)}" for name, one in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_rendered, node)) + "]"
    return raw_value(as_text("x", node)) if isinstance(node, str) else json.dumps(node)


def as_text(key: str, value: str) -> str:
    """An override with a text: bare where Hydra takes it so, else in quotes of its own."""
    half_quoted = value[:1] in ("'", '"') and value[:1] != value[-1:]
    plain = value.strip("\"'") if half_quoted else value
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    for written in (plain, f'"{plain}"', f"'{plain}'"):
        read = parsed(f"{key}={written}")
        if read is not None and read.value() == plain:
            return f"{key}={written}"
    return f'{key}="{escaped}"'


def as_list(key: str, parts: Sequence[str]) -> str:
    """An override with a list."""
    bare = f"{key}=[{','.join(parts)}]"
    if parsed(bare) is not None:
        return bare
    return f"{key}=[{','.join(raw_value(as_text('x', part)) for part in parts)}]"


def why_quotes(value: str) -> str:
    """What in a value Hydra does not take without quotes."""
    signs = sorted({sign for sign in value if not _PLAIN.match(sign)})
    shown = [f"`{sign}`" for sign in signs if not sign.isalpha()][:6]
    shown += ["letters beyond a-z"] if any(sign.isalpha() for sign in signs) else []
    if not shown:
        return "Hydra cannot read the value"
    return f"a value with {', '.join(shown)} wants quotes of its own, inside those of the shell"
