"""Which tokens begin a word, in the vocabularies of both kinds and in one that marks none."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
