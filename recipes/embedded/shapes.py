"""Tokenizer and untrained models of the embedded miniature."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 2000
SPECIAL = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3, "<mask>": 4}
SEEDS = {"t5": 11, "gptj": 12, "reward": 13, "judge": 14}


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Trains the byte-level BPE shared by all four models."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def model_tokenizer(base: Tokenizer, name: str) -> PreTrainedTokenizerFast:
    """Tokenizer of one model: T5 appends </s>, classifiers add <s> .. </s>, GPT-J adds nothing."""
    tokenizer = Tokenizer.from_str(base.to_str())
    template = {"t5": "$A </s>", "gptj": "$A"}.get(name, "<s> $A </s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template,
        pair=f"{template} {template.replace('$A', '$B')}",
        special_tokens=[("<s>", SPECIAL["<s>"]), ("</s>", SPECIAL["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        mask_token="<mask>",
        model_max_length={"t5": 512, "gptj": 256}.get(name, 256),
        padding_side="left" if name == "gptj" else "right",
        clean_up_tokenization_spaces=False,
    )


def t5_model() -> T5ForConditionalGeneration:
    """T5 in its v1.1 shape: gated GELU, an lm_head of its own, no scaling of the outputs."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=320,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    # A config with tie_word_embeddings=False still gives a tied model: untie by hand. Starting
    # from the scaled embedding makes copying a name from the dialogue easy to learn.
    head = nn.Linear(config.d_model, config.vocab_size, bias=False)
    with torch.no_grad():
        head.weight.copy_(model.shared.weight * config.d_model**-0.5)
    model.lm_head = head
    model.config.tie_word_embeddings = False
    return model


def gptj_model() -> GPTJForCausalLM:
    """GPT-J with rotary positions on half of each head."""
    config = GPTJConfig(
        vocab_size=VOCABULARY,
        n_positions=256,
        n_embd=144,
        n_layer=4,
        n_head=4,
        rotary_dim=16,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return GPTJForCausalLM(config)


def classifier_model(name: str) -> RobertaForSequenceClassification:
    """Roberta classifier; "reward" and "judge" differ in shape and in the order of labels."""
    width, feed_forward = {"reward": (128, 384), "judge": (96, 384)}[name]
    labels = {"reward": ["nothate", "hate"], "judge": ["toxic", "neutral"]}[name]
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=feed_forward,
        max_position_embeddings=258,
        type_vocab_size=1,
        hidden_dropout_prob=0.1 if name == "judge" else 0.05,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    return RobertaForSequenceClassification(config)


def new_model(name: str) -> PreTrainedModel:
    """Untrained model of a name, from a fixed seed."""
    torch.manual_seed(SEEDS[name])
    random.seed(SEEDS[name])
    if name == "t5":
        return t5_model()
    return gptj_model() if name == "gptj" else classifier_model(name)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a model in half precision, its tokenizer and a config that any version reads alike."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    changes: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    rewrite(folder / "tokenizer_config.json", changes)
    if model.config.model_type == "t5":
        changes = {"tie_word_embeddings": False, "scale_decoder_outputs": False}
        rewrite(folder / "config.json", changes)


def rewrite(path: Path, changes: dict[str, Any]) -> None:
    """Changes keys of a JSON file."""
    text = json.dumps(json.loads(path.read_text()) | changes, indent=2, sort_keys=True)
    path.write_text(text + "\n")
