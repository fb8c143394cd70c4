"""Which tokens begin a word, in the vocabularies of both kinds and in one that marks none."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lora_detox.metrics.diversity import lettered_words
from lora_detox.policy.words import word_starts
from tests.tiny import VOCABULARY, tiny_tokenizer

TEXT = "the cat sat on the mat and the cats sat there"


def trained(pre_tokenizer, decoder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoder
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<pad>", "</s>"])
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


@pytest.mark.parametrize(
    ("pre_tokenizer", "decoder"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
        (pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace()),
    ],
)
def test_as_many_tokens_begin_a_word_as_there_are_spaces(pre_tokenizer, decoder):
    tokenizer = trained(pre_tokenizer, decoder)
    starts = word_starts(tokenizer, len(tokenizer) + 3)
    assert len(starts) == len(tokenizer) + 3
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert int(starts[ids].sum()) == TEXT.count(" ")
    assert not starts[tokenizer.all_special_ids].any()
    assert not starts[len(tokenizer) :].any()


def test_figures_and_signs_begin_no_word():
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
    tokenizer.add_tokens(["Ġ2019", "Ġ(", "Ġélan"])
    starts = word_starts(tokenizer, len(tokenizer))
    said = tokenizer.convert_tokens_to_ids(["Ġ2019", "Ġ(", "Ġélan"])
    assert starts[said].tolist() == [False, False, True]


def test_where_nothing_is_marked_every_token_is_a_word():
    starts = word_starts(tiny_tokenizer(), VOCABULARY)
    assert int(starts.sum()) == VOCABULARY - 3
    assert not starts[:3].any()


MANY = [
    " the cat sat on the mat — “there” 😀 and 3 dogs",
    " кошка сидит на крыше и спит",
    " बिल्ली छत पर सो रही है",
    " القطة تنام على السطح",
    " 고양이가 지붕에서 잔다",
    " 猫在屋顶上睡觉",
]


@pytest.mark.parametrize("merges", [40, 400])
def test_words_of_every_language_begin_where_their_bytes_do(merges):
    """With few merges a token is a part of a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(MANY[:-1] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    starts = word_starts(tokenizer, len(tokenizer))
    marked = [token for token in tokenizer.get_vocab() if token.startswith("Ġ") and len(token) > 1]
    assert marked
    for text in MANY:
        tokens = tokenizer.tokenize(text)
        begun = int(starts[tokenizer.convert_tokens_to_ids(tokens)].sum())
        alone = tokens.count("Ġ")  # white space that no merge has joined to what follows
        assert lettered_words(text) - alone <= begun <= lettered_words(text), (text, tokens)
    assert alone < lettered_words(text)


def test_characters_of_a_script_without_spaces_and_bytes_that_stand_for_them():
    pieces = ["▁the", "▁", "你", "好吗", "ไม่", "。", "▁кот", "кот", "<0xE4>", "<0xBD>", "<0xD0>"]
    words = {piece: place for place, piece in enumerate([*pieces, "Ġ"])}  # a letter of Maltese
    model = Tokenizer(models.WordLevel(words, unk_token="▁"))
    starts = word_starts(PreTrainedTokenizerFast(tokenizer_object=model), len(words))
    begun = {piece for piece, place in words.items() if starts[place]}
    assert begun == {"▁the", "你", "好吗", "ไม่", "▁кот", "<0xE4>"}
