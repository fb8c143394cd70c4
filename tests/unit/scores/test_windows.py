"""How long a window may be, and that windows of any length cover the text."""

import ctypes
import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from lora_detox.embedded import embedded_path
from lora_detox.scores.windows import Windower, window_length

UNKNOWN = int(1e30)  # what tokenizers without a limit say


def model_of(stated, **embeddings):
    model = nn.ModuleDict(embeddings)
    model.config = PretrainedConfig(max_position_embeddings=stated)
    return model


@pytest.mark.parametrize(
    ("model", "stated", "max_tokens", "length"),
    [
        (model_of(None), UNKNOWN, None, 512),  # nothing is known
        (model_of(-1), UNKNOWN, None, 512),  # as relative positions are written
        (model_of(99), UNKNOWN, None, 99),
        (model_of(99), 40, None, 40),
        (model_of(99), 40, 7, 7),
        (model_of(99), None, None, 99),
        (model_of(99, wpe=nn.Embedding(30, 2)), UNKNOWN, None, 30),
        (model_of(99, position_embeddings=nn.Embedding(30, 2)), UNKNOWN, None, 30),
        (model_of(99, position_embeddings=nn.Embedding(30, 2, padding_idx=1)), 90, None, 28),
        (model_of(99, wpe=nn.Linear(30, 2)), UNKNOWN, None, 99),
    ],
)
def test_the_shortest_of_the_known_limits(model, stated, max_tokens, length):
    tokenizer = bare_tokenizer()
    tokenizer.model_max_length = stated
    assert window_length(model, tokenizer, max_tokens) == length


def bare_tokenizer():
    """Words to ids, no special token at all."""
    words = {f"w{place}": place for place in range(20)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def text_of(count):
    return " ".join(f"w{place}" for place in range(1, count + 1))


@pytest.mark.parametrize(
    ("length", "count", "starts"),
    [(1, 3, [0, 1, 2]), (4, 4, [0]), (4, 5, [0, 1]), (4, 9, [0, 3, 5]), (8, 15, [0, 6, 7])],
)
def test_windows_overlap_by_a_quarter_and_the_last_one_is_full(length, count, starts):
    windows = Windower(bare_tokenizer(), length, "reward").windows([text_of(count)])
    ids = list(range(1, count + 1))
    assert [window.ids for window in windows] == [ids[one : one + length] for one in starts]


def test_an_empty_text_without_special_tokens_is_one_token():
    (window,) = Windower(bare_tokenizer(), 4, "reward").windows([""])
    assert window.ids == [0]


class HeapUse(ctypes.Structure):
    """mallinfo2 of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def heap_bytes():
    """What the process has allocated by malloc, of any language."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("this C library does not say what is allocated")
    mallinfo.restype = HeapUse
    use = mallinfo()
    return use.uordblks + use.hblkhd


def test_words_that_come_once_are_not_kept_for_ever():
    windower = Windower(AutoTokenizer.from_pretrained(embedded_path("reward")), 32, "reward")
    generator = random.Random(0)
    before = heap_bytes()
    for _ in range(300):
        words = ["".join(generator.choices("abcdefghij", k=8)) for _ in range(48)]
        windower.windows([" ".join(words[i : i + 6]) for i in range(0, 48, 6)])
    assert heap_bytes() - before < 2**20  # the tokenizer's own bound lets 4 MB be kept
