"""A tiny random encoder, built from a configuration and saved offline."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from tests.unit.scores.conftest import VOCABULARY, make_tokenizer

POSITIONS = 24


def write_encoder(folder: Path) -> Path:
    """Save a BERT of two layers with the tokenizer of the tiny classifiers; returns the folder."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=POSITIONS,
        pad_token_id=1,
        initializer_range=0.5,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
