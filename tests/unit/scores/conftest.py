"""Tiny random classifiers, built from config objects and saved offline, and scripted scorers."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lora_detox.types import Scores

VOCABULARY = 320
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # RoBERTa's order: padding is 1


def make_tokenizer(framed=True):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 3, trainer)
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    tokenizer.enable_truncation(max_length=6)  # as in many stored tokenizers
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if framed:
        names["pad_token"] = "<pad>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_roberta(labels, **changes):
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,  # 32 tokens: positions begin after the padding id
        pad_token_id=1,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=0.5,
        **changes,
    )
    return RobertaForSequenceClassification(config)


def make_distilbert(labels):
    config = DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=16,
        n_layers=1,
        n_heads=2,
        hidden_dim=16,
        max_position_embeddings=32,
        pad_token_id=1,
        id2label=dict(enumerate(labels)),
        initializer_range=0.5,
    )
    return DistilBertForSequenceClassification(config)


def make_gpt2(labels):
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        id2label=dict(enumerate(labels)),
        initializer_range=0.5,
    )
    return GPT2ForSequenceClassification(config)


FAMILIES = {"roberta": make_roberta, "distilbert": make_distilbert, "gpt2": make_gpt2}


@pytest.fixture
def save_classifier(tmp_path):
    """Build, save and return the folder of a tiny classifier."""

    def save(family="roberta", labels=("nothate", "hate"), name=None, **changes):
        torch.manual_seed(0)
        folder = tmp_path / (name or f"{family}-classifier")
        FAMILIES[family](list(labels), **changes).save_pretrained(folder)
        make_tokenizer(framed=family != "gpt2").save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture
def lab(shared):
    return shared / "lab"


class WordScorer:
    """Counts rude words; the sign is a parameter."""

    rude = ("stupid", "moron", "disgusting", "dumb", "worthless", "pathetic")

    def __init__(self, sign=1.0, name="words@1"):
        self.sign = sign
        self.scorer_id = name

    def score(self, prompts, responses, **columns):
        counts = [sum(word in text.lower() for word in self.rude) for text in responses]
        rude = torch.tensor(counts, dtype=torch.float32)
        toxicity = (rude > 0).float() if self.sign > 0 else (rude == 0).float()
        score = -self.sign * rude
        return Scores(
            score=score, toxicity=toxicity, parts={"words": score}, scorer_id=self.scorer_id
        )


@pytest.fixture
def word_scorer():
    return WordScorer
