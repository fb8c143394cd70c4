"""Warnings for programs that do something known to be wrong, each with the line of its remedy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lora_detox.classic.caution import caution

GUIDE = "docs/migration.md"
LINES = {"R1": 69, "R2": 70, "R3": 71, "R4": 72, "R6": 74}
"""Where the guide tells the remedy."""
OVERLAP = 3
"""Tokens of the query at the head of a response that are no coincidence."""


class Adviser:
    """Says each thing once in the life of a trainer."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def say(self, remedy: str, message: str) -> None:
        """Warn, unless this remedy was named before.

        Args:
            remedy: its mark in the guide, as `R1`.
            message: what is wrong.
        """
        if remedy not in self.said:
            self.said.add(remedy)
            caution(f"{message} Remedy: {GUIDE}:{LINES[remedy]} ({remedy}).")

    def on_model(self, model: Any, ref_model: Any) -> None:
        """A PEFT policy whose start is not its reference; weights in float16."""
        if model.backbone.dtype == torch.float16:
            self.say("R6", "The policy's weights are float16, perhaps because its file's are.")
        moved = model.is_peft_model and ref_model is None and adapter_is_moved(model)
        if moved:
            self.say(
                "R1",
                "The adapter already changes the model and no ref_model is given, so the reference "
                "is the backbone without the adapter and KL does not start at 0.",
            )

    def on_generation(self, options: dict[str, Any], defaults: Any) -> None:
        """Sampling from another distribution than `step` scores."""
        if not options.get("do_sample", getattr(defaults, "do_sample", False)):
            return
        neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_length": 0}
        neutral |= {"min_new_tokens": 0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
        used = {name: options.get(name, getattr(defaults, name, None)) for name in neutral}
        wrong = [
            f"{name}={value}"
            for name, value in used.items()
            if value is not None and value != neutral[name] and not (value < 0 and "min" in name)
        ]
        if wrong:
            self.say(
                "R2",
                f"Responses are sampled with {', '.join(wrong)}, but step() takes logprobs of the "
                "plain distribution, so the ratio and the KL are of something else.",
            )

    def on_responses(
        self, queries: Sequence[Tensor], responses: Sequence[Tensor], encoder_decoder: bool
    ) -> None:
        """Queries, or their ends, inside the responses of a decoder-only model."""
        if encoder_decoder:
            return
        pairs = list(zip(queries, responses, strict=True))
        if all(len(r) > len(q) >= OVERLAP and torch.equal(r[: len(q)], q) for q, r in pairs):
            self.say(
                "R3",
                "Every response begins with its whole query, so the query is scored and trained as "
                "if the policy had written it.",
            )
        elif any(_begins_inside(q, r) for q, r in pairs):
            self.say(
                "R4",
                "A response begins with the end of its query: cutting the last max_new_tokens off "
                "the output reaches into the query where end-of-sequence came early.",
            )

    def on_kl(self, kl: float) -> None:
        """A mean KL that no true KL can be."""
        if kl < -1.0:
            self.say(
                "R2",
                f"KL to the reference is {kl:.2f} per response; below zero it means that sampling "
                "and scoring differ.",
            )


def _begins_inside(query: Tensor, response: Tensor) -> bool:
    longest = min(len(query), len(response) - 1)
    return any(
        torch.equal(response[:n], query[-n:]) and len(set(response[:n].tolist())) > 1
        for n in range(OVERLAP, longest + 1)
    )


def adapter_is_moved(model: Any) -> bool:
    """True if a LoRA adapter is not the identity it starts as."""
    return any(
        "lora_B" in name and parameter.requires_grad and bool(parameter.detach().any())
        for name, parameter in model.named_parameters()
    )
