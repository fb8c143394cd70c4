"""Which tokens begin a word: what the length of a response is counted in."""

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

MARKS = ("Ġ", "Ċ", "ĉ", "▁")
"""White space in the tokens of byte-level and sentencepiece vocabularies."""


def word_starts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Bool[Tensor, "V"]:
    """Whether each token begins a word.

    Args:
        tokenizer: of the policy.
        vocabulary: rows of the output matrix, which may be more than the tokenizer has tokens.

    Returns:
        True at tokens that begin with white space; at every token but the special ones where the
        vocabulary marks none.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    begins = torch.tensor([str(token).startswith(MARKS) for token in tokens])
    if not begins.any():
        begins = torch.ones_like(begins)
    begins[[i for i in tokenizer.all_special_ids if i < len(begins)]] = False
    starts = torch.zeros(max(vocabulary, len(begins)), dtype=torch.bool)
    starts[: len(begins)] = begins
    return starts
