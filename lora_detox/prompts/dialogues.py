"""A column that holds a list: several prompts, or the turns of one dialogue.

Lists of prompts come from BOLD: each has a reference of its own, or none. A dialogue comes as a
list of texts or of objects (speaker and text, role and content), with one summary for all of it.
`data.turns` decides where the data does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lora_detox.choices import Turns
from lora_detox.errors import DataError

SPEAKERS = ("speaker", "role", "from", "name", "author", "user")
TEXTS = ("text", "content", "value", "utterance", "message", "dialogue", "sentence")
_DIALOGUES = ("dialog", "conversation", "turns", "messages", "utterances", "chat", "transcript")


def reads_as(
    prompts: Sequence[Any], references: Any, column: str, turns: Turns, where: str
) -> Turns:
    """Whether a list is one dialogue, several prompts or asks for its last turn.

    Args:
        prompts: the list, with at least one entry.
        references: of the row: None, a text, or a list.
        column: that the list stands in.
        turns: as the settings have it.
        where: the row, for messages.

    Returns:
        `dialogue`, `prompts` or `last`.

    Raises:
        DataError: several chat messages in a column of prompts, which can be meant either way.
    """
    if turns is not Turns.auto:
        return turns
    if any(word in column.lower() for word in _DIALOGUES):
        return Turns.dialogue
    if isinstance(prompts[0], Mapping):
        if len(prompts) == 1:
            return Turns.last
        raise DataError(
            f"{where}: the prompt in `{column}` is a list of {len(prompts)} messages "
            f"({', '.join(map(str, prompts[0]))}): set `data.turns=dialogue` to read them as one "
            "text, or `data.turns=last` to take the last message of the user (`task.chat=true` "
            "puts it through the chat template)"
        )
    one_for_all = isinstance(references, str) or (
        isinstance(references, list) and len(references) == 1
    )
    return Turns.dialogue if one_for_all and len(prompts) > 1 else Turns.prompts


def joined(turns: Sequence[Any]) -> str | None:
    """The turns as one text, each on a line of its own, speakers in front.

    Args:
        turns: texts, or objects with a text and perhaps a speaker.

    Returns:
        "Speaker: text" lines; None where a turn has no text.
    """
    lines = [_line(turn) for turn in turns]
    return None if None in lines else "\n".join(str(line) for line in lines)


def last_text(turns: Sequence[Any]) -> str | None:
    """The text of the last turn of a user, or of the last turn where no role is named."""
    users = [
        turn
        for turn in turns
        if isinstance(turn, Mapping)
        and str(_first(turn, SPEAKERS)).lower() in ("user", "human", "prompter")
    ]
    turn = (users or list(turns))[-1]
    text = _first(turn, TEXTS) if isinstance(turn, Mapping) else turn
    return text if isinstance(text, str) else None


def _line(turn: Any) -> str | None:
    if isinstance(turn, str):
        return turn.strip()
    if not isinstance(turn, Mapping):
        return None
    text, speaker = _first(turn, TEXTS), _first(turn, SPEAKERS)
    if not isinstance(text, str):
        return None
    return text.strip() if speaker is None else f"{speaker}: {text.strip()}"


def _first(turn: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((turn[name] for name in names if turn.get(name) is not None), None)
