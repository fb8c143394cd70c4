"""Which tokens begin a word: what the length of a response is counted in."""

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

MARKS = ("Ġ", "Ċ", "ĉ", "▁")
"""White space in the tokens of byte-level and sentencepiece vocabularies."""


def word_starts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> Bool[Tensor, "V"]:
    """Whether each token begins a word with a letter: figures and signs are no words.

    Args:
        tokenizer: of the policy.
        vocabulary: rows of the output matrix, which may be more than the tokenizer has tokens.

    Returns:
        True at tokens of white space and a letter; at every token but the special ones where the
        vocabulary marks none.
    """
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    begins = torch.tensor([str(t).startswith(MARKS) and str(t)[1:2].isalpha() for t in tokens])
    if not begins.any():
        begins = torch.ones_like(begins)
    begins[[i for i in tokenizer.all_special_ids if i < len(begins)]] = False
    starts = torch.zeros(max(vocabulary, len(begins)), dtype=torch.bool)
    starts[: len(begins)] = begins
    return starts
