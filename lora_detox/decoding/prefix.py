"""A civil line before each prompt, for the model alone."""

from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lora_detox.chat import ChatFormat
from lora_detox.rollout import Responses, generate_responses
from lora_detox.special_tokens import tokens_around
from lora_detox.types import Policy, PromptBatch, Sampling


class CivilPrefix:
    """Puts one line before each prompt; a `Generate`.

    The prompts keep their token ids and their text, so that what is cut of them and what is scored
    is that of plain decoding.

    Args:
        tokenizer: of the policy.
        line: what the model reads first.
        chat: where prompts are user messages; the line then begins the message.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, line: str, chat: ChatFormat | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.line_ids = _ids(tokenizer, line.strip() + "\n")
        if chat is None:
            self.head_ids = tokens_around(tokenizer)[0]
        else:
            text, start, _ = chat.render("text")
            self.head_ids = _ids(tokenizer, text[:start])

    def __call__(
        self, policy: Policy, prompts: PromptBatch, sampling: Sampling, **generation: Any
    ) -> Responses:
        """Answer the prompts, each behind the line."""
        return generate_responses(policy, self.prefixed(prompts), sampling, **generation)

    def prefixed(self, prompts: PromptBatch) -> PromptBatch:
        """The same prompts with the ids of the line behind what stands before every text.

        Args:
            prompts: padded on the side of the policy's family.

        Returns:
            Prompts that are longer by the line; texts and references as before.
        """
        left = self.tokenizer.padding_side == "left"
        count, width = prompts.query_ids.shape
        width += len(self.line_ids)
        pad, device = int(self.tokenizer.pad_token_id), prompts.query_ids.device
        query_ids = torch.full((count, width), pad, device=device)
        query_mask = torch.zeros_like(query_ids, dtype=torch.bool)
        for row, (ids, mask) in enumerate(zip(prompts.query_ids, prompts.query_mask, strict=True)):
            longer = self._with_line(ids[mask].tolist())
            place = slice(width - len(longer), None) if left else slice(len(longer))
            query_ids[row, place] = torch.tensor(longer, device=device)
            query_mask[row, place] = True
        return replace(prompts, query_ids=query_ids, query_mask=query_mask)

    def _with_line(self, ids: list[int]) -> list[int]:
        pairs = zip(ids, self.head_ids, strict=False)
        differing = (place for place, (one, other) in enumerate(pairs) if one != other)
        at = next(differing, min(len(ids), len(self.head_ids)))
        return [*ids[:at], *self.line_ids, *ids[at:]]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)
    return list(encoded["input_ids"])
