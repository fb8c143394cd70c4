"""Lists in the prompt column: several prompts, the turns of one dialogue, or messages of a chat.

`data.turns=auto` tells them apart:

- Turns with a speaker each (objects, pairs, an object of two lists) are one dialogue, unless they
  are messages of a chat without references in a column that is not called like a dialogue: of
  these the only one of a user is the prompt, and several are a question to the settings.
- Plain texts with a list of as many references in every row are prompts (BOLD).
- Plain texts with one reference for all of them are one dialogue, and so are those in a column
  that is called dialogue, conversation, turns, messages, utterances, ...
- Other lists of plain texts are prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from lora_detox.choices import Turns
from lora_detox.errors import DataError
from lora_detox.prompts.columns import ABSENT, FieldMap, look_up, name_read
from lora_detox.prompts.rows import BadRow, RawRow
from lora_detox.prompts.values import is_missing, written_value

SPEAKER_KEYS = ("speaker", "role", "from", "name", "author", "user", "sender")
TEXT_KEYS = ("text", "content", "value", "utterance", "message", "body")
_DIALOGUE_WORDS = ("dialog", "conversation", "turns", "message", "utterance", "chat", "exchange")
_PROMPT_WORDS = ("prompts", "queries", "questions", "texts", "sentences", "instructions")
_USERS = frozenset({"user", "human", "prompter"})
_ROLES = _USERS | {"assistant", "system", "gpt", "bot", "model", "developer", "tool"}
_CHOICE = (
    "set `data.turns=dialogue` to take the turns as one prompt, `data.turns=last` for the last "
    "message of the user alone, or `data.turns=prompts` for one prompt per turn"
)
Turn = tuple[str | None, str]


class Unfolding:
    """Rows of one prompt each, where the prompt column holds lists.

    Args:
        raw_rows: rows of one source; with `auto` they are read once more at the first list.
        fields: which column is what.
        turns: what they are, or `auto`.
    """

    def __init__(
        self, raw_rows: Iterable[RawRow], fields: FieldMap, turns: Turns = Turns.auto
    ) -> None:
        self._raw_rows, self._fields, self._turns = raw_rows, fields, turns

    @cached_property
    def _of_texts(self) -> Turns:
        is_auto = self._turns is Turns.auto
        return _meaning(self._raw_rows, self._fields) if is_auto else self._turns

    def unfold(self, raw: RawRow) -> list[RawRow | BadRow]:
        """What a row gives.

        Args:
            raw: one of the rows.

        Returns:
            The row itself where there is no list. Rows out of a list of prompts are named
            "row#place", and so are their ids. A list that is no dialogue is a bad row.

        Raises:
            DataError: if lists could be either, prompts or turns.
        """
        value = _turn_list(look_up(raw.columns, self._fields.prompt))
        if value is None:
            return [raw]
        of_texts = self._of_texts
        return [*_one_row(raw, value, self._fields, of_texts if _is_plain(value) else self._turns)]


def unfold_rows(
    raw_rows: Sequence[RawRow], fields: FieldMap, turns: Turns = Turns.auto
) -> list[RawRow | BadRow]:
    """All that the rows of one source give in turn; see Unfolding."""
    unfolding = Unfolding(raw_rows, fields, turns)
    return [one for raw in raw_rows for one in unfolding.unfold(raw)]


def _is_plain(value: Sequence[Any]) -> bool:
    return all(one is None or isinstance(one, str) for one in value)


def _turn_list(value: Any) -> list[Any] | None:
    """A list of prompts or turns; also an object of equally long lists, one of them the texts."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, Mapping) or not any(key in value for key in TEXT_KEYS):
        return None
    lists = {key: one for key, one in value.items() if isinstance(one, list)}
    if len(lists) < len(value) or len({len(one) for one in lists.values()}) != 1:
        return None
    return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]


def _meaning(raw_rows: Iterable[RawRow], fields: FieldMap) -> Turns:
    """What lists of plain texts are in this source: `dialogue` or `prompts`."""
    first: tuple[RawRow, int] | None = None
    are_read, are_missing, has_several, each_has_its_own = False, True, False, True
    for raw in raw_rows:
        value = _turn_list(look_up(raw.columns, fields.prompt))
        if value is None:
            continue
        first = first or (raw, len(value))
        if not _is_plain(value):
            continue
        reference = _reference_list(raw, fields)
        are_read |= reference is not ABSENT
        are_missing &= is_missing(reference)
        if len(value) > 1:
            has_several = True
            each_has_its_own &= isinstance(reference, list) and len(reference) == len(value)
    if first is None:
        return Turns.prompts
    column = name_read(first[0].columns, fields.prompt)
    is_dialogue = _is_called_dialogue(column)
    if not are_read or are_missing:
        return Turns.dialogue if is_dialogue else Turns.prompts
    name = column.rpartition(".")[2].casefold()
    is_ambiguous = is_dialogue if each_has_its_own else any(word in name for word in _PROMPT_WORDS)
    if is_ambiguous and has_several:
        what = "as many references" if each_has_its_own else "one reference for all of them"
        raise DataError(
            f"`{column}` holds lists of texts with {what} (first row: {first[0].where}, {first[1]} "
            "texts), so they could be prompts or the turns of one dialogue; set "
            "`data.turns=dialogue` for one dialogue per row, or `data.turns=prompts` for one "
            "prompt per text"
        )
    return Turns.prompts if each_has_its_own else Turns.dialogue


def _reference_list(raw: RawRow, fields: FieldMap) -> Any:
    value = look_up(raw.columns, fields.references) if fields.references else ABSENT
    written = written_value(value) if raw.is_text and isinstance(value, str) else None
    return value if written is None else written


def _one_row(
    raw: RawRow, value: list[Any], fields: FieldMap, turns: Turns
) -> list[RawRow] | list[BadRow]:
    """What a row with a list gives."""
    if not value:
        return [BadRow(where=raw.where, reason="the list in the prompt column is empty")]
    turned = [_turn(one) for one in value]
    spoken = [turn for turn in turned if turn is not None]
    if len(spoken) < len(turned):
        odd = value[turned.index(None)]
        keys = f" with {', '.join(map(str, odd))}" if isinstance(odd, Mapping) else ""
        return [
            BadRow(
                where=raw.where,
                reason=f"the prompt is a list of {type(odd).__name__}{keys}, want texts, or turns "
                f"with a text ({', '.join(TEXT_KEYS)})",
                kind="the prompt is a list of something else than texts or turns",
                advice="name another column with `data.fields.prompt`",
            )
        ]
    if turns is Turns.prompts:
        return _unfolded(raw, [text for _, text in spoken], fields)
    if turns is Turns.auto and _is_chat(spoken) and _stands_for_a_prompt(raw, fields):
        if len(spoken) > 1 or not _is_user(spoken[0]):
            reason = f"the prompt is a chat of {len(spoken)} messages, want one of the user"
            kind = "the prompt is a chat, not one message of the user"
            return [BadRow(where=raw.where, reason=reason, kind=kind, advice=_CHOICE)]
        turns = Turns.last
    if turns is Turns.last:
        users = [turn for turn in spoken if _is_user(turn)]
        return [_with_prompt(raw, (users or spoken)[-1][1], fields)]
    lines = [
        text.strip() if speaker is None else f"{speaker}: {text.strip()}"
        for speaker, text in spoken
    ]
    lines = [line for line in lines if line.strip()]
    return [_with_prompt(raw, "\n".join(lines), fields)]


def _is_called_dialogue(column: str) -> bool:
    return any(word in column.casefold() for word in _DIALOGUE_WORDS)


def _stands_for_a_prompt(raw: RawRow, fields: FieldMap) -> bool:
    """Whether neither the column's name nor a reference says that a list is a dialogue."""
    references = _reference_list(raw, fields)
    has_none = references is ABSENT or is_missing(references)
    return has_none and not _is_called_dialogue(name_read(raw.columns, fields.prompt))


def _is_chat(turns: Sequence[Turn]) -> bool:
    return all((speaker or "").casefold() in _ROLES for speaker, _ in turns)


def _is_user(turn: Turn) -> bool:
    return (turn[0] or "").casefold() in _USERS


def _turn(one: Any) -> Turn | None:
    """Speaker and text of a turn; None where it is none."""
    if one is None or isinstance(one, str):
        return None, one or ""
    if isinstance(one, (list, tuple)):
        if len(one) != len(("speaker", "text")) or not all(isinstance(part, str) for part in one):
            return None
        return one[0], one[1]
    if not isinstance(one, Mapping):
        return None
    text = next((one[key] for key in TEXT_KEYS if one.get(key) is not None), None)
    if isinstance(text, list):  # parts of a message, of which some may be pictures
        parts = [part.get("text") for part in text if isinstance(part, Mapping)]
        text = "\n".join(part for part in parts if isinstance(part, str)) or None
    speaker = next((one[key] for key in SPEAKER_KEYS if one.get(key) is not None), None)
    if not isinstance(text, str):
        return None
    return None if speaker is None else str(speaker), text


def _with_prompt(raw: RawRow, prompt: str, fields: FieldMap) -> RawRow:
    # The key as the settings name it, so that dotted names and alternatives still find it.
    return replace(raw, columns={**raw.columns, fields.prompt.split("|")[0]: prompt})


def _unfolded(raw: RawRow, prompts: Sequence[str], fields: FieldMap) -> list[RawRow]:
    references = _reference_list(raw, fields)
    if not isinstance(references, list) or len(references) != len(prompts):
        references = [references] * len(prompts)
    named = look_up(raw.columns, fields.id) if fields.id else ABSENT
    unfolded = []
    for place, (prompt, reference) in enumerate(zip(prompts, references, strict=True)):
        columns = {**raw.columns, fields.prompt.split("|")[0]: prompt}
        if fields.references and reference is not ABSENT:
            columns[fields.references.split("|")[0]] = reference
        if fields.id and named is not ABSENT:
            columns[fields.id.split("|")[0]] = f"{named}#{place}"
        unfolded.append(replace(raw, where=f"{raw.where}#{place}", columns=columns))
    return unfolded
