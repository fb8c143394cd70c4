"""Which tokens would complete a banned word, whatever tokens the word is written in.

Transformers' NoBadWordsLogitsProcessor forbids sequences of token ids. A model that draws its
tokens also writes a word in other pieces than its tokenizer would ("id" + "iot"), so the texts of
the tokens are compared here, without regard to case. A word is banned where no letter or digit
stands beside it: "ass" leaves "class" and "assume" alone. What is forbidden is the token that ends
the word, before it is known whether more letters would follow.
"""

import codecs
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lora_detox.text.words import is_unspaced

_SPACE = re.compile(r"\s")
_BETWEEN = "\0"


class TextState(NamedTuple):
    """What of a text decides which tokens may follow.

    Attributes:
        partials: beginnings of banned words that the text ends with.
        inside: whether it ends within a word.
        pending: bytes of a character that is not whole yet.
    """

    partials: frozenset[str] = frozenset()
    inside: bool = False
    pending: bytes = b""


class WordBan:
    """The banned words of a vocabulary.

    Args:
        words: words or phrases, of any case; with a single space where a phrase has white space.
        tokens: bytes that each token adds to a text, by id.
    """

    def __init__(self, words: Iterable[str], tokens: Sequence[bytes]) -> None:
        self.words = frozenset(filter(None, (_normal(word.strip()) for word in words)))
        self._beginnings = {word[:end] for word in self.words for end in range(1, len(word))}
        self._tokens = tokens
        # Tokens that begin within a character are rare, and mean something by what stands before.
        self._continuing = [i for i, one in enumerate(tokens) if one and 0x80 <= one[0] < 0xC0]
        continuing = set(self._continuing)
        texts = [
            (_normal(_whole(one)[0]), i)
            for i, one in enumerate(tokens)
            if one and i not in continuing
        ]
        self._sorted = sorted(texts)
        holding = self._holding_a_word(texts)
        self._after_sign, self._in_word = (
            [i for text, i in holding if self._completes(TextState(inside=inside), text)]
            for inside in (False, True)
        )
        self._states: dict[TextState, Int[Tensor, "_"]] = {}

    def after(self, state: TextState, token_id: int) -> TextState:
        """The state of a text behind one more token.

        Args:
            state: before it.
            token_id: of the token.

        Returns:
            The state behind it.
        """
        text, pending = _whole(state.pending + self._tokens[token_id])
        if not self._tokens[token_id]:
            return state
        state, _ = self._read(state, _normal(text))
        return state._replace(pending=pending)

    def banned_ids(self, state: TextState) -> Int[Tensor, "_"]:
        """Ids of the tokens that would complete a banned word.

        Args:
            state: of the text before them.

        Returns:
            The ids, rising.
        """
        if state not in self._states:
            ids = self._continued(state) | self._begun(state)
            self._states[state] = torch.tensor(sorted(ids), dtype=torch.long)
        return self._states[state]

    def _holding_a_word(self, texts: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those with a banned word anywhere, found in all of them at once."""
        starts, place = [], 0
        for text, _ in texts:
            starts.append(place)
            place += len(text) + len(_BETWEEN)
        everything, holding = _BETWEEN.join(text for text, _ in texts), set()
        for word in self.words:
            at = everything.find(word)
            while at >= 0:
                holding.add(bisect_right(starts, at) - 1)
                at = everything.find(word, at + 1)
        return [texts[number] for number in sorted(holding)]

    def _continued(self, state: TextState) -> set[int]:
        """Those among the tokens that begin within a character."""
        return {
            i
            for i in self._continuing
            if self._completes(state, _normal(_whole(state.pending + self._tokens[i])[0]))
        }

    def _begun(self, state: TextState) -> set[int]:
        """Those among all other tokens."""
        if state.pending:  # the broken character is a sign
            return set(self._after_sign)
        ids = set(self._in_word if state.inside else self._after_sign)
        for partial in state.partials:
            for word in self.words:
                if word.startswith(partial) and len(word) > len(partial):
                    ids.update(self._beginning_with(word[len(partial) :]))
        return ids

    def _beginning_with(self, rest: str) -> Iterator[int]:
        """Tokens that begin with the rest of a word, behind which the word may be over."""
        place = bisect_left(self._sorted, (rest, -1))
        while place < len(self._sorted) and self._sorted[place][0].startswith(rest):
            text, token_id = self._sorted[place]
            if len(text) == len(rest) or not (_in_words(rest[-1]) and _in_words(text[len(rest)])):
                yield token_id
            place += 1

    def _completes(self, state: TextState, text: str) -> bool:
        return self._read(state, text)[1]

    def _read(self, state: TextState, text: str) -> tuple[TextState, bool]:
        """The state behind some characters, and whether a word was completed on the way."""
        partials, inside = state.partials, state.inside
        hit = complete = False
        for character in text:
            letter = _in_words(character)
            hit = hit or (complete and not letter)
            begins = {character} if not (inside and letter) else set()
            grown = begins | {partial + character for partial in partials}
            ended = bool(grown & self.words)
            hit, complete = hit or (ended and not letter), ended and letter
            partials, inside = frozenset(grown & self._beginnings), letter
        return TextState(partials, inside), hit or complete


class BannedWords:
    """Makes the words of a ban impossible in the rows of a batch; a `LogitsEdit`.

    Args:
        ban: of the policy's vocabulary.
        rows: responses that are being written.
    """

    def __init__(self, ban: WordBan, rows: int) -> None:
        self.ban, self.states = ban, [TextState()] * rows

    def edit(
        self, token_ids: Int[Tensor, "B"] | None, logits: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B V"]:
        """Logits of the next token, -inf where it would complete a banned word."""
        if token_ids is not None:
            pairs = zip(self.states, token_ids.tolist(), strict=True)
            self.states = [self.ban.after(state, token_id) for state, token_id in pairs]
        for row, state in enumerate(self.states):
            logits[row, self.ban.banned_ids(state).to(logits.device)] = -torch.inf
        return logits

    def keep(self, rows: Int[Tensor, "K"]) -> None:
        """Drop every row that is not in `rows`."""
        self.states = [self.states[row] for row in rows.tolist()]


def _whole(data: bytes) -> tuple[str, bytes]:
    """The whole characters of some bytes, and the bytes of one that is cut at the end."""
    if data.isascii():
        return data.decode(), b""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(data), decoder.getstate()[0]


def _normal(text: str) -> str:
    """Lower case, one kind of apostrophe and of white space."""
    return _SPACE.sub(" ", text.lower().replace("’", "'"))  # noqa: RUF001 (typographers' own)


def _in_words(character: str) -> bool:
    """Whether a character beside a word makes it another word; never in unspaced scripts."""
    return (character.isalnum() or character == "_") and not is_unspaced(character)
