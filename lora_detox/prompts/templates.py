"""A prompt in its template, as token ids that fit a window.

The whole text is encoded once and then cut by ids: tokens leave from the end of the prompt field,
so the template's tail ("Summary:") stays whole and no token is made twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from transformers import PreTrainedTokenizerBase

from lora_detox.chat import ChatFormat
from lora_detox.errors import DataError
from lora_detox.special_tokens import tokens_around

PLACEHOLDER = "{prompt}"


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """Text around the prompt.

    Attributes:
        head: what stands before it.
        tail: what stands after it.
        chat: makes the whole a user message of a chat; None leaves it as it is.
    """

    head: str
    tail: str
    chat: ChatFormat | None = None


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt as the policy reads it.

    Attributes:
        text: exactly what `ids` encode, special tokens left out; in a chat the user's message.
        ids: token ids, at least one.
        was_cut: True if tokens of the prompt field were left out.
        source: the part of `text` that is the prompt, without what the template puts around it.
    """

    text: str
    ids: list[int]
    was_cut: bool
    source: str


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """A template with its prompt: the text, and characters of the prompt and of what is shown."""

    text: str
    prompt: tuple[int, int]
    shown: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """Ids of a whole text, with the range of tokens that may be cut and the number put before."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    field_start: int
    field_end: int
    before: int = 0


def parse_template(template: str, chat: ChatFormat | None = None) -> PromptTemplate:
    r"""Split a template at its one `{prompt}`; `{{` and `}}` stand for braces.

    Args:
        template: for instance "Summarize:\n{prompt}\nSummary:".
        chat: where the whole is a user message.

    Returns:
        What stands before and after the prompt.

    Raises:
        DataError: unless there is exactly one field and it is `{prompt}`.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise DataError(
            f"the template {template!r} cannot be read ({error}): write braces of its text twice; "
            "change `task.template`"
        ) from error
    fields = [(name, spec, conversion) for _, name, spec, conversion in pieces if name is not None]
    if fields != [("prompt", "", None)]:
        placeholders = ", ".join(f"{{{name}}}" for name, _, _ in fields) or "none"
        raise DataError(
            f"the template {template!r} has the fields: {placeholders}; want {PLACEHOLDER} exactly "
            "once; change `task.template`"
        )
    at = next(i for i, piece in enumerate(pieces) if piece[1] is not None)
    head = "".join(piece[0] for piece in pieces[: at + 1])
    tail = "".join(piece[0] for piece in pieces[at + 1 :])
    return PromptTemplate(head=head, tail=tail, chat=chat)


def apply_template(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: PromptTemplate,
    max_query_tokens: int,
    prompt_tokens: int | None = None,
    add_special_tokens: bool,
    prefix: Sequence[int] | None = None,
) -> EncodedPrompt:
    """Encode a prompt in its template, cutting the prompt field where the window asks for it.

    Args:
        prompt: text of the row.
        tokenizer: a fast tokenizer (the cut needs character offsets).
        template: what stands around the prompt.
        max_query_tokens: the window: ids returned, special tokens included, at most.
        prompt_tokens: tokens of the prompt field to keep at most, >= 1; None keeps all.
        add_special_tokens: True lets the tokenizer add all of its own (encoder-decoder models).
            False takes what it puts before a text (BOS), never what it puts after: a decoder-only
            model goes on writing there.
        prefix: what the tokenizer puts before a text, where that is known; None finds it.

    Returns:
        Ids and the text that they encode: the original text where nothing was cut, else the kept
        ids decoded.

    Raises:
        DataError: if the template alone does not leave one token of the window to the prompt.
    """
    filled = _fill(template, prompt)
    encoding = _encode(filled, tokenizer, add_special_tokens and template.chat is None)
    if not add_special_tokens and template.chat is None:  # a chat template writes BOS itself
        before = tokens_around(tokenizer)[0] if prefix is None else list(prefix)
        encoding = _put_before(before, encoding)
    if not encoding.ids:  # a normaliser may leave nothing of an odd text; a query needs a token
        encoding = _put_before([tokenizer.eos_token_id], encoding)
    whole_field = encoding.field_end - encoding.field_start
    room = max_query_tokens - (len(encoding.ids) - whole_field)
    if room < 1 and len(encoding.ids) > max_query_tokens:
        raise DataError(
            f"the template takes {len(encoding.ids) - whole_field} tokens of a window of "
            f"{max_query_tokens} and leaves no room for a prompt; raise `data.max_query_tokens` "
            f"or shorten `task.template`{' or `task.system`' if template.chat else ''}"
        )
    kept = min(whole_field, room, whole_field if prompt_tokens is None else prompt_tokens)
    if kept >= whole_field:
        shown = filled.text[slice(*filled.shown)]
        source = filled.text[slice(*filled.prompt)]
        return EncodedPrompt(text=shown, ids=encoding.ids, was_cut=False, source=source)
    return _cut(encoding, kept, filled, template, tokenizer)


def _cut(
    encoding: _Encoding,
    kept: int,
    filled: _Filled,
    template: PromptTemplate,
    tokenizer: PreTrainedTokenizerBase,
) -> EncodedPrompt:
    """The prompt with the first `kept` tokens of its field."""
    cut = encoding.field_start + _whole_characters(encoding, kept)
    ids = encoding.ids[:cut] + encoding.ids[encoding.field_end :]
    shown_ids = ids[encoding.before :]
    if template.chat is not None:
        first, last = _tokens_within(encoding.offsets, filled.shown)
        shown_ids = encoding.ids[first:cut] + encoding.ids[encoding.field_end : last]
    return EncodedPrompt(
        text=decode_query(shown_ids, tokenizer),
        ids=ids,
        was_cut=True,
        source=decode_query(encoding.ids[encoding.field_start : cut], tokenizer),
    )


def decode_query(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Text of ids, special tokens left out and nothing tidied."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _fill(template: PromptTemplate, prompt: str) -> _Filled:
    """The text that is encoded; a chat template may trim the message that the prompt is in."""
    content = template.head + prompt + template.tail
    first, last = len(template.head), len(template.head) + len(prompt)
    if template.chat is None:
        return _Filled(text=content, prompt=(first, last), shown=(0, len(content)))
    text, start, end = template.chat.render(content)
    trimmed = content.find(text[start:end])
    if trimmed < 0:  # changed beyond trimming: all of the message may be cut
        return _Filled(text=text, prompt=(start, end), shown=(start, end))
    first, last = (min(max(start + one - trimmed, start), end) for one in (first, last))
    return _Filled(text=text, prompt=(first, last), shown=(start, end))


def _tokens_within(offsets: list[tuple[int, int]], characters: tuple[int, int]) -> tuple[int, int]:
    """Range of the tokens that lie within some characters."""
    within = [
        place
        for place, (first, last) in enumerate(offsets)
        if first >= characters[0] and last <= characters[1] and first < last
    ]
    return (within[0], within[-1] + 1) if within else (0, 0)


def _encode(
    filled: _Filled, tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool
) -> _Encoding:
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} gives no character offsets, which cutting prompts needs: "
            "want a tokenizer with a tokenizer.json; change `policy.path`"
        )
    # Stored tokenizers may carry a truncation of their own (128 tokens, say): never use it.
    encoded: Any = tokenizer(
        filled.text,
        add_special_tokens=add_special_tokens,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    start, end = filled.prompt
    field = [
        i
        for i, (first, last) in enumerate(offsets)
        if not encoded["special_tokens_mask"][i] and first >= start and last <= end and first < last
    ]
    field_start = field[0] if field else 0
    field_end = field[-1] + 1 if field else 0
    return _Encoding(ids=ids, offsets=offsets, field_start=field_start, field_end=field_end)


def _put_before(prefix: list[int], encoding: _Encoding) -> _Encoding:
    """The ids behind a prefix, unless the text begins with it already, as a template may."""
    count = len(prefix)
    if not count or encoding.ids[:count] == prefix:
        return encoding
    return _Encoding(
        ids=[*prefix, *encoding.ids],
        offsets=[(0, 0)] * count + encoding.offsets,
        field_start=encoding.field_start + count,
        field_end=encoding.field_end + count,
        before=encoding.before + count,
    )


def _whole_characters(encoding: _Encoding, kept: int) -> int:
    """Largest number of field tokens up to `kept` that ends with a whole character.

    A byte-level token may hold only part of a character; the next token then begins before the
    end of it. Where no smaller number does either, `kept` stays.
    """
    for count in range(kept, 0, -1):
        last = encoding.field_start + count - 1
        if encoding.offsets[last + 1][0] >= encoding.offsets[last][1]:
            return count
    return kept
