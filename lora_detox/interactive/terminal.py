"""Asking in a terminal: a line is a prompt, the answers stand beside each other, `/` is a command.

Works with a keyboard and with piped text alike; the end of the input ends it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_detox.errors import DetoxError, OutOfMemoryError, SettingsError
from lora_detox.interactive.answers import Answer
from lora_detox.interactive.session import Column, Reply, Session
from lora_detox.ranges import check_ranges
from lora_detox.visible import readable

HELP = """\
a line is a prompt; a backslash at its end goes on in the next line, // begins a prompt with /
/strength 0.8   of the adapter, 0 (the original) to 1.5
/samples 3      answers of each model
/tokens 40      longest answer
/temperature 1  0 takes the likeliest token      /top_p 0.9      /top_k 40
/seed 1         other draws, the same for every model
/examples       prompts of the run               /pick 2         asks the second of them
/again          asks the last prompt again       /settings       what is asked with
/help           these lines                      /quit           ends it"""
_NUMBERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "strength": ("strength", float),
    "samples": ("samples", int),
    "tokens": ("new_tokens", int),
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", int),
    "seed": ("seed", int),
}
"""Command -> field of a question, and how its number is read."""
_SHOWN_EXAMPLES = 15
_TITLE_CHARACTERS = 200


def typed_lines() -> Iterator[str]:
    """Lines of the standard input, with a sign to type at where that is a terminal."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    sign = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            yield input(sign)
        except EOFError:
            return


class Terminal:
    """A conversation by lines.

    Args:
        session: what answers.
        console: where to.
    """

    def __init__(self, session: Session, console: Console) -> None:
        self._session, self._console = session, console
        self._question = session.first

    def run(self, lines: Iterable[str]) -> None:
        """Answer lines until they end or one of them is `/quit`.

        Args:
            lines: as they are typed, without their ends.
        """
        self._say("a line is a prompt, /help lists commands, /quit ends")
        begun: list[str] = []
        for line in lines:
            if line.endswith("\\") and not (line.startswith("/") and not begun):
                begun.append(line[:-1])
                continue
            whole, begun = "\n".join([*begun, line]), []
            if whole.strip() == "/quit":
                return
            try:
                self._take(whole)
            except OutOfMemoryError:
                raise
            except DetoxError as error:
                self._say(f"error: {error}")

    def _take(self, line: str) -> None:
        """One line: a command, a prompt, or nothing."""
        if not line.strip():
            return
        if line.startswith("//") or not line.startswith("/"):
            self._ask(line.removeprefix("/"))
            return
        name, _, given = line[1:].strip().partition(" ")
        commands: dict[str, Callable[[], None]] = {
            "pick": lambda: self._pick(given.strip()),
            "again": lambda: self._ask(self._question.prompt),
            "examples": self._show_examples,
            "settings": lambda: self._say(self._settings_line()),
            "help": lambda: self._say(HELP),
            **{one: partial(self._set, one, given.strip()) for one in _NUMBERS},
        }
        if name not in commands:
            raise SettingsError(f"there is no command /{name}; /help lists them")
        commands[name]()

    def _set(self, name: str, given: str) -> None:
        field, read = _NUMBERS[name]
        if name == "strength" and not self._session.has_strength:
            raise SettingsError("/strength: an adapter here can only be used at strength 1")
        try:
            question = replace(self._question, **{field: read(given)})
        except ValueError as error:
            kind = "a whole number" if read is int else "a number"
            raise SettingsError(f"/{name}: got {given or 'nothing'}, want {kind}") from error
        check_ranges(question, "chat.")
        self._question = question
        self._say(self._settings_line())

    def _settings_line(self) -> str:
        now = self._question
        return ", ".join(f"{name} {getattr(now, field):g}" for name, (field, _) in _NUMBERS.items())

    def _show_examples(self) -> None:
        for number, one in enumerate(self._session.examples[:_SHOWN_EXAMPLES], start=1):
            self._say(f"{number:>3}  {' '.join(one.split())}")
        if not self._session.examples:
            self._say("the run has no samples.jsonl to pick prompts from")

    def _pick(self, given: str) -> None:
        count = len(self._session.examples)
        if not given.isdecimal() or not 1 <= int(given) <= count:
            raise SettingsError(f"/pick: got {given or 'nothing'}, want a number from 1 to {count}")
        self._ask(self._session.examples[int(given) - 1])

    def _ask(self, prompt: str) -> None:
        self._question = replace(self._question, prompt=prompt)
        reply = self._session.ask(self._question)
        self._console.print(reply_table(reply, self._console))
        for note in reply.notes:
            self._say(f"note     {note}")

    def _say(self, text: str) -> None:
        self._console.print(readable(text, self._console), soft_wrap=True)


def reply_table(reply: Reply, console: Console) -> Table:
    """Answers side by side under their prompt: a column for each model, a row for each draw.

    Args:
        reply: what was answered.
        console: where it will be printed.

    Returns:
        The table; no control character of a model is in it.
    """
    prompt = " ".join(reply.question.prompt.split())
    short = prompt if len(prompt) <= _TITLE_CHARACTERS else f"{prompt[:_TITLE_CHARACTERS]} ..."
    table = Table(
        box=box.SIMPLE_HEAD,
        title=readable(short, console),
        title_justify="left",
        title_style="italic",
        expand=True,
        pad_edge=False,
        show_lines=len(reply.columns[0].answers) > 1,
    )
    for column in reply.columns:
        heading = readable(f"{column.title} ({column.detail})", console)
        table.add_column(heading.append_text(_mean(column)), ratio=1, overflow="fold")
    for row in zip(*(column.answers for column in reply.columns), strict=True):
        table.add_row(*(_cell(one, console) for one in row))
    return table


def _mean(column: Column) -> Text:
    if len(column.answers) == 1:
        return Text("")
    means = [f"{name} {column.toxicity(name):.2f}" for name in column.answers[0].toxicity]
    return Text(f"\nmean toxicity: {', '.join(means)}", style="dim")


def _cell(answer: Answer, console: Console) -> Text:
    text = answer.text.strip()
    shown = readable(text, console) if text else Text("(empty response)", style="dim")
    return Text.assemble(shown, "\n", (score_line(answer), "dim"))


def score_line(answer: Answer) -> str:
    """Scores of an answer in one line."""
    parts = [f"toxicity: {', '.join(f'{k} {v:.2f}' for k, v in answer.toxicity.items())}"]
    if answer.score is not None:
        parts.append(f"score {answer.score:+.2f}")
    return "; ".join([*parts, f"{answer.tokens} tokens"])
