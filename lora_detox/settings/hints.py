"""What Hydra trips over, answered before Hydra reads it with the way to type it.

Hydra reads `=`, `{}`, `[]` and quotes in a value as its own, a comma as a sweep, `policy=NAME` as a
file of conf/policy, and `None` as a text.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override, OverrideType, Sweep

from lora_detox.settings.compose import closest_keys, known_keys
from lora_detox.settings.field_types import holds, type_of_key
from lora_detox.settings.hydra_options import hydra_options
from lora_detox.settings.mode import is_multirun
from lora_detox.settings.quoting import (
    PATH_KEYS,
    as_list,
    as_text,
    in_shell,
    parsed,
    raw_value,
    readable,
    why_quotes,
)

Groups = Mapping[str, Sequence[str]]
"""Groups of conf/, each with its options."""
_NOTHING = ("none", "None", "NONE", "nil", "Nil")
_NO = (*_NOTHING, "no", "No", "false", "False", "disabled")
_PLUGINS = {"joblib": "sweeps", "submitit": "sweeps", "ray": "ray"}
"""Launchers of Hydra's, each with the extra that brings it."""
_DASHED = re.compile(r"--?([a-z_]+)([a-zA-Z0-9_.@/]*)(=.*)?", re.DOTALL)


class Arguments(NamedTuple):
    """A command line.

    Attributes:
        overrides: what is no option of Hydra's.
        sweeps: whether commas mean several jobs, or a file of the user may say so.
    """

    overrides: list[str]
    sweeps: bool = False


def read_arguments(arguments: Sequence[str], groups: Groups) -> Arguments:
    """Hydra's options apart from the overrides, which may stand between them.

    Args:
        arguments: of the command line.
        groups: of conf/.

    Returns:
        The overrides, `--task=...` among them, which Hydra would take for an option.
    """
    names = {*groups, *(key.split(".")[0] for key in known_keys())} - {"run"}  # --run is Hydra's
    dashed: list[str] = []
    others = list(arguments)
    for one, following in zip(arguments, [*arguments[1:], "="][: len(arguments)], strict=True):
        if (match := _DASHED.fullmatch(one)) is None or match[1] not in names:
            continue
        others.remove(one)
        with_value = "=" not in one and "=" not in following and not following.startswith("-")
        if with_value:  # --KEY VALUE
            others.remove(following)
        dashed.append(f"{one} {following}" if with_value else one)
    options, rest = hydra_options().parse_known_args(others)
    overrides = [*dashed, *options.overrides, *rest]
    files = options.config_dir or options.config_path or options.config_name
    return Arguments(overrides, bool(options.multirun or files or is_multirun(overrides)))


def refused(arguments: Arguments, groups: Groups) -> list[str]:
    """One sentence for each override that Hydra cannot take as it was meant.

    Args:
        arguments: of the command line.
        groups: of conf/.

    Returns:
        Sentences with the override and the way to type it; none where Hydra takes all of them.
    """
    overrides = arguments.overrides
    if spaced := _spaces_around_equals(overrides):
        return [spaced]
    sentences: list[str | None] = []
    for place, text in enumerate(overrides):
        read = parsed(text)
        if read is None:
            sentences.append(_unreadable(text, overrides[place - 1] if place else "", groups))
        elif not text.lstrip("+~").startswith(("hydra.", "hydra/")):
            sentences.append(_misread(text, read, groups, sweeps=arguments.sweeps))
    return [sentence for sentence in sentences if sentence]


def missing_option(overrides: Sequence[str], message: str, groups: Groups) -> list[str]:
    """What an option that a group does not have may have meant.

    Args:
        overrides: of the command line.
        message: Hydra's error.
        groups: of conf/.

    Returns:
        A sentence for each such override that is understood.
    """
    sentences = []
    for text in overrides:
        group, _, value = text.lstrip("+").partition("=")
        group = group.partition("@")[0]
        options = groups.get(group, ())
        if f"'{group}/{value}'" not in message:
            continue
        alike = value.replace("-", "_").lower()
        if "local" in options and (re.search(r"[/\\.]", value) or Path(value).exists()):
            sentences.append(_own_files(text, group, value))
        elif alike in options or (value in _NO and _off(options)):
            want = alike if alike in options else _off(options)
            sentences.append(f"{text}: want {group}={want}")
    return sentences


def missing_plugin(message: str) -> list[str]:
    """What an error of Hydra's about a launcher or a sweeper wants.

    Args:
        message: Hydra's error.

    Returns:
        One sentence where a plugin is missing, or a sweeper was needed.
    """
    for option, extra in _PLUGINS.items():
        if f"hydra/launcher/{option}" in message:
            return [f"hydra/launcher: {option} is an extra: pip install 'lora_detox[{extra}]'"]
    if "does not support sweep type" in message:
        return ["an interval is chosen from by a study: add hydra/sweeper=optuna"]
    return []


def _spaces_around_equals(overrides: Sequence[str]) -> str | None:
    """`KEY = VALUE` comes as three overrides, `KEY =VALUE` and `KEY= VALUE` as two."""
    for before, text, after in zip(overrides, overrides[1:], [*overrides[2:], ""], strict=False):
        whole, value = f"{before} {text}", None
        if "=" not in before and text == "=":
            whole, value = f"{before} = {after}", after
        elif "=" not in before and text.startswith("="):
            value = text[1:]
        elif before.endswith("=") and before.count("=") == 1 and "=" not in text:
            value = text
        if value is not None:
            want = in_shell(readable(f"{before.rstrip('=')}={value}"))
            return f"{whole}: no spaces around `=`; want {want}"
    return None


def _unreadable(text: str, before: str, groups: Groups) -> str:
    """An override that is none by Hydra's grammar."""
    if text.startswith("-"):
        return _with_dashes(text)
    key, equals, value = text.partition("=")
    if not equals:
        return _without_equals(text, before, groups)
    if key != key.strip():
        want = in_shell(readable(f"{key.strip()}={value.strip()}"))
        return f"{text}: no spaces around `=`; want {want}"
    if "local" in groups.get(key, ()):
        return _own_files(text, key, value)
    want = readable(text) if key not in groups else f"{key}= and one of {', '.join(groups[key])}"
    quoted = raw_value(want)[:1] in ("'", '"')
    reason = why_quotes(value) if quoted else "Hydra cannot read the value"
    return f"{text}: {reason}; want {in_shell(want)}"


def _with_dashes(text: str) -> str:
    name, separator, value = text.lstrip("-").partition("=" if "=" in text else " ")
    if not separator:
        value = "true" if holds(type_of_key(name), bool) else "VALUE"
    close = [] if type_of_key(name) else closest_keys(name.replace("-", "_"), [])
    meant = " or ".join(in_shell(readable(f"{one}={value}")) for one in close or [name])
    return f"{text}: no dashes before a key or a group; want {meant}"


def _without_equals(text: str, before: str, groups: Groups) -> str:
    group, option = (*re.split(r"[./:]", text, maxsplit=1), "")[:2]
    if option in groups.get(group, ()):
        return f"{text}: an option of a group is chosen with `=`; want {group}={option}"
    if owners := [f"{group}={text}" for group, options in groups.items() if text in options]:
        return f"{text}: no group stands before it; want {' or '.join(owners)}"
    if text in groups:
        return f"{text}: no option given; want {text}= and one of {', '.join(groups[text])}"
    if text in known_keys():
        return f"{text}: no value given; want {text}=VALUE"
    sentence = f"{text}: want KEY=VALUE or GROUP=OPTION"
    if "=" not in before:
        return sentence
    joined = in_shell(readable(f"{before} {text}"))
    return f"{sentence}; where it belongs to the value before it, quotes: {joined}"


def _misread(text: str, read: Override, groups: Groups, *, sweeps: bool) -> str | None:
    """An override that Hydra reads as something else than what was meant."""
    key = read.key_or_group
    dotted = key.replace("/", ".")
    group, _, option = dotted.partition(".")
    if key in groups:
        return _group_value(text, read, groups[key], sweeps=sweeps)
    if option in groups.get(group, ()) and dotted not in known_keys():
        return f"{text}: an option of a group is chosen with `=`; want {group}={option}"
    if read.type is OverrideType.DEL:
        known = key in known_keys()
        return f"{text}: keys cannot be taken out; want {key}=null" if known else None
    if dotted != key and dotted in known_keys():
        return f"{text}: want dots between names: {in_shell(f'{dotted}={raw_value(text)}')}"
    value, wanted = read.value(), type_of_key(key)
    if isinstance(value, Sweep):
        return None if sweeps and not holds(wanted, list) else _sweep(text, key, wanted)
    return _scalar(text, key, value, wanted)


def _group_value(text: str, read: Override, options: Sequence[str], *, sweeps: bool) -> str | None:
    group, value, off = read.key_or_group, read.value(), _off(options)
    want = f"{group}={off}" if off else f"{group}= and one of {', '.join(options)}"
    if read.type is OverrideType.DEL:
        return None if read.package else f"{text}: a run needs every group; want {want}"
    if isinstance(value, Sweep):
        return (
            None if sweeps else f"{text}: a comma means several runs: --multirun {in_shell(text)}"
        )
    if isinstance(value, bool | NoneType | int | float):
        want = f"{group}=default" if value is True and "default" in options else want
        return f"{text}: a group takes the name of an option; want {want}"
    if read.type is OverrideType.ADD and read.package is None:
        return f"{text}: the group is there already; want {text.lstrip('+')}"
    return None


def _sweep(text: str, key: str, wanted: Any) -> str:
    """Commas that Hydra takes for several jobs."""
    raw, several = raw_value(text), f"several runs: --multirun {in_shell(text)}"
    if holds(wanted, list):
        parts = [part.strip(" '\"") for part in raw.split(",") if part.strip()]
        return f"{text}: a list has brackets; want {in_shell(as_list(key, parts))}"
    if holds(wanted, float) and re.fullmatch(r"-?\d+,\d+", raw):
        want = f"one number: {key}={raw.replace(',', '.')}"
    elif holds(wanted, int) and re.fullmatch(r"\d{1,3}(,\d{3})+", raw):
        want = f"one number: {key}={raw.replace(',', '')}"
    elif holds(wanted, str):
        want = f"one text: {in_shell(as_text(key, raw))}"
    else:
        return f"{text}: a comma means {several}"
    return f"{text}: a comma means several runs; {want}; {several}"


def _scalar(text: str, key: str, value: Any, wanted: Any) -> str | None:
    """A value of another type than that of its key, where it is plain what was meant."""
    raw, want = raw_value(text), None
    if raw in _NOTHING and holds(wanted, NoneType):
        want = f"nothing is written null; want {key}=null"
    elif holds(wanted, list) and isinstance(value, str | int | float):
        parts = [part for part in re.split(r"[\s,;'\"]+", raw) if part]
        if holds(wanted, int) and (band := re.fullmatch(r"(\d+)-(\d+)", raw)):
            parts = list(band.groups())
        want = f"a list has brackets; want {in_shell(as_list(key, parts))}"
    elif is_dataclass(wanted) and isinstance(value, str | int | float):
        keys = ", ".join(f"{key}.{entry.name}" for entry in fields(wanted))
        of_set = f"a set is chosen as a group; want data@{text}"
        want = of_set if key.startswith("evaluation.sets.") else f"want one of {keys}"
    elif isinstance(value, float) and holds(wanted, int) and not holds(wanted, float):
        if value.is_integer():
            want = f"it takes a whole number; want {key}={int(value)}"
    elif isinstance(value, str) and key.rsplit(".", 1)[-1] in PATH_KEYS and "$" in value:
        filled = os.path.expandvars(value)
        if filled != value and not Path(value).exists():
            written = in_shell(readable(f"{key}={filled}"))
            want = f"the shell fills in variables outside of single quotes alone; want {written}"
    return f"{text}: {want}" if want else None


def _own_files(text: str, group: str, value: str) -> str:
    path = in_shell(as_text(f"{group}.path", value))
    return f"{text}: a folder, a file or a hub id is given by {group}=local {path}"


def _off(options: Sequence[str]) -> str | None:
    return next((name for name in ("off", "none") if name in options), None)
