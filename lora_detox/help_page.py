"""What `--help` says: stages, examples, options, and every key with its default and meaning.

All of it is read from where it is true: the stages' own modules, the schema, the comments of conf/.
"""

import ast
import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from lora_detox.choices import Stage
from lora_detox.settings.reference import Key, reference_keys, reference_options

_USAGE = """\
lora_detox: make a language model less toxic by training a LoRA adapter, and say what it cost.

  python -m lora_detox [GROUP=OPTION ...] [KEY=VALUE ...]      lora-detox does the same

  --help [GROUP ...]   this page; with groups their options and keys alone, as in --help algorithm
  --version            the version
  doctor               versions, device and disk, for a report of a fault
  --cfg job            what the overrides compose to, without running it
  --json               print summary.json alone, the rest on standard error (stage=evaluate, plan)
  -m                   several runs, a comma between values (Hydra)
"""
_EXAMPLES = (
    ("task=flan_summary", "the embedded miniature, a minute on two cores"),
    ("task=flan_summary policy=local policy.path=DIR data=local data.path=FILE", "your own"),
    ("hydra.run.dir=runs/mine resume=true", "go on with that run, with its own settings"),
    ("stage=evaluate 'evaluation.models=[runs/DIR]'", "measure it again"),
    ("stage=chat chat.run=runs/DIR", "type a prompt: original and detoxified side by side"),
    ("stage=export run=runs/DIR", "a folder for the hub, checked"),
    ("stage=plan task=flan_summary_real", "will it fit, and how long will it take?"),
    ("-m task=flan_summary seed=1,2", "two runs"),
    ("-m hydra/sweeper=optuna 'algorithm.kl.coef=interval(0.02,0.5)'", "a study by Optuna"),
)
_WIDEST = 110


def help_text(conf: Path, words: Sequence[str]) -> str:
    """The page.

    Args:
        conf: folder of the configuration files.
        words: of the command line; names of groups among them narrow the page.

    Returns:
        Text of several lines.
    """
    keys = reference_keys(conf)
    groups = {_group(key.name) for key in keys} - {""}
    wanted = [word for word in words if word in groups]
    shown = [key for key in keys if not wanted or _group(key.name) in wanted]
    parts = [_groups(conf, wanted), _keys(shown)]
    return "\n".join(parts if wanted else [_USAGE, _stages(), _examples(), *parts])


def _stages() -> str:
    lines = ["Stages (stage=NAME; detox where none is named)"]
    for stage in Stage:
        lines += _entry(f"  {stage.value:<14}", _stage_meaning(stage.value))
    return "\n".join(lines) + "\n"


def _stage_meaning(stage: str) -> str:
    """First sentence of a stage's module, which is read and not imported."""
    source = (Path(__file__).parent / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    paragraph = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).removeprefix(f"stage={stage}: ")


def _examples() -> str:
    lines = ["Examples (python -m lora_detox ...)"]
    lines += [f"  {command}\n      {meaning}" for command, meaning in _EXAMPLES]
    return "\n".join(lines) + "\n"


def _groups(conf: Path, wanted: Sequence[str]) -> str:
    """The options of each group that leaves a choice."""
    lines = ["Groups (GROUP=OPTION)"]
    for group, options in groupby(reference_options(conf), key=lambda one: one.group):
        names = [one.name for one in options]
        if (wanted and group not in wanted) or names == ["default"]:
            continue
        lines += _entry(f"  {group:<14}", ", ".join(names))
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def _keys(keys: Sequence[Key]) -> str:
    """Every key under its group, with default, type, range and meaning."""
    lines = ["Keys (KEY=VALUE), each with its default"]
    for group, own in groupby(keys, key=lambda key: _group(key.name)):
        lines.append(f"\n {group or 'of the run'}")
        for key in own:
            kind = key.range or key.type
            lines.append(f"  {key.name}={key.default}")
            lines += _entry("      ", f"{key.meaning} [{kind}]" if key.meaning else f"[{kind}]")
    return "\n".join(lines) + "\n"


def _group(name: str) -> str:
    """The part of a key before its first dot; nothing for one without."""
    return name.partition(".")[0] if "." in name else ""


def _entry(head: str, text: str) -> list[str]:
    width = min(shutil.get_terminal_size((_WIDEST, 0)).columns, _WIDEST)
    indent = " " * len(head)
    wrapped = textwrap.wrap(
        text, max(40, width), initial_indent=head, subsequent_indent=indent, break_long_words=False
    )
    return wrapped or [head.rstrip()]
