"""Files of prompts and a small byte-level tokenizer, made on the spot."""

import gzip
import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Summarize the following conversation.",
    "Summary: the cat sat on the mat and the dog ran away",
    "one two three four five six seven eight nine ten",
    "Hello, how are you doing today? I am fine, thank you.",
] * 5


def train_tokenizer(post_processor: object = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    # As in many stored tokenizers: a truncation that nobody asked for.
    tokenizer.enable_truncation(max_length=8)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def tokenizer():
    """Adds nothing, as GPT-J's."""
    return train_tokenizer()


@pytest.fixture(scope="session")
def t5_tokenizer():
    """Appends </s>, as T5's."""
    return train_tokenizer(
        processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    )


@pytest.fixture
def write_rows(tmp_path):
    """Write rows (dicts, or raw lines) as jsonl or jsonl.gz; returns the path."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        content = ("\n".join(lines) + "\n").encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


@pytest.fixture
def shared_data(shared):
    return shared / "data"


@pytest.fixture
def lab(shared):
    return shared / "lab"
