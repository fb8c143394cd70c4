"""The commands of a run: the one that made it, and those that go on from it."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_detox.report.next_steps import PROGRAM, again
from lora_detox.report.wording import keeps_start

_OWN_LOOP = ("ppo", "rloo", "grpo", "reinforce")
"""Algorithms whose runs can go on to more iterations."""


def commands_of(summary: Mapping[str, Any], directory: Path) -> list[tuple[str, str]]:
    """What to type.

    Args:
        summary: the `summary.json` dict.
        directory: the run directory.

    Returns:
        (what it is for, the line for a shell); a run from Python has no command that made it.
    """
    folder, adapter = (_as_value(shown_folder(one)) for one in (directory, directory / "adapter"))
    commands, resumed = [], [*PROGRAM, f"hydra.run.dir={folder}", "resume=true"]
    if made := _made_by(summary):
        commands.append(("It was made by", shlex.join(made)))
    iterations, is_trained = summary.get("iterations"), not summary.get("soup")
    if is_trained:
        commands.append(("It goes on after an interruption with", shlex.join(resumed)))
    if is_trained and summary.get("algorithm") in _OWN_LOOP and isinstance(iterations, int):
        longer = [*resumed, f"algorithm.iterations={2 * iterations}"]
        commands.append(("It goes on to twice its iterations with", shlex.join(longer)))
    if is_trained and not keeps_start(summary) and made:
        seed = summary.get("seed", 0)
        trained = [f"policy.adapter={adapter}", f"seed={seed}"]
        commands.append(("Train on from its adapter", again(summary, *trained)))
    if made and isinstance(summary.get("seed"), int):
        commands.append(("Another seed", again(summary, f"seed={summary['seed'] + 1}")))
    task = [f"task={summary['task']}"] if "task" in summary else []
    further = (
        ("Try it out", ["stage=chat", f"chat.run={folder}"]),
        (
            "Evaluate it again, beside other models",
            ["stage=evaluate", *task, f"evaluation.models=[{folder}]"],
        ),
        ("Set it beside other runs", ["stage=compare", f"runs=[{folder},OTHER]"]),
        ("Export the adapter", ["stage=export", f"run={folder}"]),
    )
    return [*commands, *((what, shlex.join([*PROGRAM, *rest])) for what, rest in further)]


def shown_folder(directory: Path) -> str:
    """A folder as a command is typed where the program runs: relative where it lies below."""
    try:
        return directory.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(directory)


def _as_value(text: str) -> str:
    """A path as the value of an override: quoted where Hydra would read signs in it."""
    if re.fullmatch(r"[\w./+-]+", text, re.ASCII):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{escaped}'"


def _made_by(summary: Mapping[str, Any]) -> list[str]:
    if "overrides" not in summary:
        return []
    kept = [one for one in summary["overrides"] if not one.startswith("resume=")]
    return [*PROGRAM, *kept]
