"""The commands that README, docs/, recipes and conf/ tell a reader to type."""

import re
import shlex
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PAGES = [
    *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(path for path in (TOP / "docs").glob("*.md") if path.stem != "log"),
    *sorted((TOP / "recipes").rglob("*.md")),
]
"""Log and decisions are history: they name the commands of their day."""
FILES = sorted((TOP / "conf").rglob("*.yaml"))
PROGRAMS = ("python", "make", "bash", "lora-detox", "pytest", "git", "pip", "hf", "accelerate")
LAUNCHERS = (["torchrun"], ["accelerate", "launch"])
_SPAN = re.compile(r"`([^`]+)`")
_VARIABLE = re.compile(r"[A-Z_]+=\S*")


def name_of(path):
    return path.relative_to(TOP).as_posix()


def blocks_of(text):
    """Code blocks, fenced or indented, and spans of code in the text between them."""
    yield from re.findall(r"^ *```(?:bash)?\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"(?:^ {4}.*\n?)+", text, re.MULTILINE)
    for paragraph in re.sub(r"^ {4}.*\n?", "\n", text, flags=re.MULTILINE).split("\n\n"):
        yield from (" ".join(span.split()) for span in _SPAN.findall(paragraph))


def lines_of(block):
    """Logical lines: a backslash or an open quote goes on in the next one."""
    pending = ""
    for line in block.replace("\\\n", "").splitlines():
        pending = f"{pending}\n{line}" if pending else line
        try:
            yield shlex.split(pending, comments=True)
        except ValueError:  # an open quote
            continue
        pending = ""


def commands_of(path):
    """Commands as lists of words, in the order of the page, without variables before them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        blocks = re.findall(r"^# .*?(python -m lora_detox .*)$", text, re.MULTILINE)
    else:
        blocks = blocks_of(text)
    lines = (_without_variables(words) for block in blocks for words in lines_of(block))
    commands = [words for words in lines if len(words) > 1 and words[0] in PROGRAMS]
    return [words for n, words in enumerate(commands) if words not in commands[:n]]


def _without_variables(words):
    """A command without `NAME=value` before it and the folder of its program."""
    first = next((n for n, word in enumerate(words) if not _VARIABLE.fullmatch(word)), len(words))
    words = [word.removeprefix(".venv/bin/") for word in words[first:]]
    launched = any(words[: len(one)] == one for one in LAUNCHERS) and "-m" in words
    return ["python", *words[words.index("-m") :]] if launched else words
