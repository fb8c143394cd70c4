"""What tokenizers put around texts, and which ids a model has rows for."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from lora_detox.special_tokens import embedding_rows, id_list, ids_outside, is_inside, tokens_around

WORDS = ("<pad>", "</s>", "<unk>", "<s>", "<lang>", "text", "a", "b")


def tokenizer_with(single, words=WORDS):
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [(word, vocabulary[word]) for word in words if word.startswith("<")]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize(
    ("single", "around"),
    [
        ("$A", ([], [])),
        ("<s> $A", ([3], [])),  # Llama, Gemma, Mistral
        ("</s> $A", ([1], [])),  # OPT
        ("<s> <lang> $A", ([3, 4], [])),  # GLM: a prefix of two
        ("<s> $A </s>", ([3], [1])),  # BART, RoBERTa
        ("$A </s> <lang>", ([], [1, 4])),  # mBART, NLLB of old
        ("<lang> $A </s>", ([4], [1])),  # NLLB
    ],
)
def test_what_a_tokenizer_puts_around_a_text(single, around):
    assert tokens_around(tokenizer_with(single)) == around


def test_an_example_that_reads_as_the_special_token_is_passed_over():
    words = ("<unk>", "</s>", "a")  # "text" is unknown, and the unknown token is what is put before
    assert tokens_around(tokenizer_with("<unk> $A", words)) == ([0], [])


def test_rows_of_nested_configurations():
    assert embedding_rows(AutoConfig.for_model("gpt2", vocab_size=40)) == 40
    parts = {
        "encoder": {"model_type": "bert", "vocab_size": 30},
        "decoder": {"model_type": "gpt2", "vocab_size": 50},
    }
    config = AutoConfig.for_model("encoder-decoder", **parts)
    assert (embedding_rows(config), embedding_rows(config, decoder=True)) == (30, 50)
    config = AutoConfig.for_model("gemma3", text_config={"vocab_size": 20})
    assert embedding_rows(config) == embedding_rows(config, decoder=True) == 20


def test_ids_inside_and_outside():
    assert [is_inside(one, 8) for one in (-1, 0, 7, 8, None)] == [False, True, True, False, False]
    assert is_inside(10**9, None)
    assert (id_list(None), id_list(4), id_list([4, 5])) == ([], [4], [4, 5])
    tokenizer = tokenizer_with("$A")
    assert ids_outside(tokenizer, 8) == {}
    assert ids_outside(tokenizer, 7) == {"b": 7}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    assert ids_outside(tokenizer, 8) == {"<turn>": 8}
    assert ids_outside(tokenizer, None) == {}
