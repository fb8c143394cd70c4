"""A banned word cannot be written, whatever its case and its tokens; other words can."""

import random
import re

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import NoBadWordsLogitsProcessor, PreTrainedTokenizerFast

from lora_detox.decoding.word_ban import BannedWords, TextState, WordBan
from lora_detox.policy.token_bytes import token_bytes
from tests.tiny import VOCABULARY, tiny_tokenizer

WORDS = ["idiot", "Ass", "shut up", "don't", "n-word", "$hit", "дурак", "ÉLAN", "笨蛋", "a"]
PIECES = [
    *("id", "iot", "IDI", "OT", " idiot", "Idiots", " as", "s", " Ass", "ume", " shut", " up"),
    *(
        "don",
        "'",
        "\u2019",
        "t",
        " n",
        "-",
        "word",
        "$",
        "hit",
        "a",
        " a",
        ".",
        " ",
        "\n",
        "_",
        "1",
    ),
    *("дур", "ак", " Дурак", "él", "an", "笨", "蛋", "很", "“", "”", "x"),
]


def pattern(word):
    """What reviewers would look for: the word where no letter or digit stands beside it."""
    before, after = (
        r"(?<!\w)" if one.isalnum() and one < "一" else "" for one in (word[0], word[-1])
    )
    after = after.replace("<!", "!")
    return before + re.escape(word).replace(r"\ ", r"\s").replace("'", "['\u2019]") + after


ANY_WORD = re.compile("|".join(pattern(word) for word in WORDS), re.IGNORECASE)


def tokens():
    """Pieces of the words and every single byte of them, so that characters are cut too."""
    whole = [piece.encode() for piece in PIECES]
    cut = {bytes([one]) for word in WORDS for one in word.encode()}
    return [b"", *whole, *sorted(cut)]


def walk(draw, vocabulary, ban, length=30):
    state, data = TextState(), b""
    for _ in range(length):
        free = set(range(len(vocabulary))) - set(ban.banned_ids(state).tolist() if ban else [])
        token = draw.choice(sorted(free))
        state, data = ban.after(state, token) if ban else state, data + vocabulary[token]
    return data.decode("utf-8", "replace")


def test_random_pieces_write_the_words_but_not_under_the_ban():
    vocabulary, draw = tokens(), random.Random(0)
    ban = WordBan(WORDS, vocabulary)
    free = [walk(draw, vocabulary, None) for _ in range(400)]
    seen = {match[0].lower() for text in free for match in ANY_WORD.finditer(text)}
    assert {"idiot", "ass", "дурак", "笨蛋", "élan", "a", "$hit"} <= seen
    for _ in range(300):
        text = walk(draw, vocabulary, ban)
        assert not ANY_WORD.search(text), text


@pytest.mark.parametrize("phrase", ["shut up", "n-word", "don't"])
def test_words_of_several_parts(phrase):
    vocabulary = [b"shut", b" shut", b" up", b"up", b"\n", b"n", b"-", b"word", b"don", b"'t", b"x"]
    ban, draw = WordBan([phrase], vocabulary), random.Random(1)
    looked_for = re.compile(pattern(phrase), re.IGNORECASE)
    assert any(looked_for.search(walk(draw, vocabulary, None, 60)) for _ in range(300))
    assert not any(looked_for.search(walk(draw, vocabulary, ban, 60)) for _ in range(300))


def test_other_words_are_left_alone():
    vocabulary = [b"ass", b" ass", b" assume", b"cl", b" class", b"assume", b" asset", b"e", b"."]
    ban = WordBan(["ass"], vocabulary)
    banned = {vocabulary[i] for i in ban.banned_ids(TextState()).tolist()}
    assert banned == {b"ass", b" ass"}
    after_cl = ban.after(TextState(), 3)
    assert {vocabulary[i] for i in ban.banned_ids(after_cl).tolist()} == {
        b" ass"
    }  # "class" is free


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet
    )
    corpus = ["you idiot, shut up you worthless idiot", "IDIOT Idiot élan “so” дурак"] * 5
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def sentencepiece():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=special)
    tokenizer.train_from_iterator(["you idiot, shut up you idiot"] * 5, trainer)
    tokenizer.add_tokens([f"<0x{byte:02X}>" for byte in "д“".encode()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("make", [byte_level, sentencepiece, tiny_tokenizer])
def test_bytes_of_tokens_make_up_what_is_decoded(make):
    tokenizer, draw = make(), random.Random(0)
    pieces = token_bytes(tokenizer, len(tokenizer) + 2)
    assert len(pieces) == len(tokenizer) + 2
    assert pieces[-2:] == [b"", b""]
    for _ in range(50):
        ids = draw.sample(range(len(tokenizer)), 12)
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        joined = b"".join(pieces[i] for i in ids).decode("utf-8", "replace")
        assert _plain(joined) == _plain(text)


def _plain(text):
    """Decoders replace a broken character once or byte by byte."""
    return re.sub("\ufffd+", "\ufffd", text).strip()


def test_what_transformers_forbids_is_forbidden_here_too():
    """But for the middle of a word, where the same letters are another word."""
    tokenizer, draw = byte_level(), random.Random(2)
    forms = [f(word) for word in ("idiot", "shut up") for f in (str.lower, str.title, str.upper)]
    bare, spaced = (
        [tokenizer(space + form, add_special_tokens=False).input_ids for form in forms]
        for space in ("", " ")
    )
    assert max(map(len, bare + spaced)) > 1
    comma = tokenizer.convert_tokens_to_ids(",")
    ban = WordBan(["idiot", "shut up"], token_bytes(tokenizer, len(tokenizer)))
    more = 0
    for _ in range(200):
        ids = [draw.randrange(len(tokenizer)), comma, *draw.choice(bare + spaced)[:-1]]
        state = TextState()
        for one in ids:
            state = ban.after(state, one)
        theirs = NoBadWordsLogitsProcessor(spaced if state.inside else bare + spaced)
        scores = theirs(torch.tensor([ids]), torch.zeros(1, len(tokenizer)))
        forbidden = set((scores[0] == -torch.inf).nonzero()[:, 0].tolist())
        own = set(ban.banned_ids(state).tolist())
        assert forbidden <= own
        more += len(own) > len(forbidden)
    assert more > 0


def test_rows_that_end_take_their_state_with_them():
    ban = WordBan(["w5 w6"], token_bytes(tiny_tokenizer(), VOCABULARY))
    session = BannedWords(ban, 3)
    session.edit(None, torch.zeros(3, VOCABULARY))
    logits = session.edit(torch.tensor([7, 5, 6]), torch.zeros(3, VOCABULARY))
    assert (logits == -torch.inf).nonzero().tolist() == [[1, 6]]
    session.keep(torch.tensor([1, 2]))
    logits = session.edit(torch.tensor([5, 5]), torch.zeros(2, VOCABULARY))
    assert (logits == -torch.inf).nonzero().tolist() == [[0, 6], [1, 6]]
