"""Random weights in the shapes of hub models, with prompts that their tokenizer knows."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

SPECIAL = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
LENGTHS = {"short": (10, 20), "long": (140, 260)}
"""Words of the prompts, one token each."""


def flan_t5_small() -> PreTrainedModel:
    """77 M weights, the output matrix untied as in the hub's checkpoint."""
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = T5ForConditionalGeneration(config)
    model.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
    nn.init.normal_(model.lm_head.weight, std=0.02)
    return model


def gpt_neo_125m() -> PreTrainedModel:
    """125 M weights."""
    attention = [[["global", "local"], 6]]
    config = GPTNeoConfig(
        hidden_size=768, num_layers=12, num_heads=12, attention_types=attention, **SPECIAL
    )
    return GPTNeoForCausalLM(config)


def gpt2_medium() -> PreTrainedModel:
    """355 M weights."""
    return GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16, **SPECIAL))


SHAPES = {
    "flan_t5_small": flan_t5_small,
    "gpt_neo_125m": gpt_neo_125m,
    "gpt2_medium": gpt2_medium,
}


def write_tokenizer(size: int, place: Path) -> None:
    """Save a tokenizer of `size` words, t3, t4 and so on after three special ones."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    words |= {f"t{i}": i for i in range(3, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(place)


def write_model(name: str, folder: Path) -> Path:
    """Save a random model and a tokenizer of its size; nothing where it is there already."""
    place = folder / name
    if not (place / "tokenizer.json").is_file():
        torch.manual_seed(0)
        model = SHAPES[name]()
        model.save_pretrained(place)
        write_tokenizer(model.config.vocab_size, place)
    return place


def write_prompts(name: str, folder: Path) -> Path:
    """Save 300 prompts of random words."""
    file, draw = folder / f"{name}.jsonl", random.Random(0)
    with file.open("w") as stream:
        for _ in range(300):
            words = [f"t{draw.randrange(3, 30000)}" for _ in range(draw.randint(*LENGTHS[name]))]
            stream.write(json.dumps({"prompt": " ".join(words), "references": ["t5 t6"]}) + "\n")
    return file
