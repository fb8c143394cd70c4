"""Warnings, at the program's own line: in general, and for what is known to be wrong."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

REMEDIES = {
    "R1": "pass `ref_model=create_reference_model(model)` to PPOTrainer, so that KL is measured "
    "against the adapter as it is now",
    "R2": "generate with `do_sample=True, temperature=1.0, top_k=0, top_p=1.0, min_length=-1` and "
    "no repetition penalty",
    "R3": "cut the prompt off with `generate(queries, return_prompt=False)`, and score the "
    "response alone",
    "R4": "replace `response.squeeze()[-max_new_tokens:]` by "
    "`generate(query, return_prompt=False)`",
    "R6": "load the model with `dtype=torch.float32` or `dtype=torch.bfloat16`",
}
"""What to do about each known mistake. The page docs/migration.md tells more, by these marks."""
OVERLAP = 3
"""Tokens of the query at the head of a response that are no coincidence."""
NEUTRAL = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Generation options under which a model samples from its own distribution."""
_PACKAGE = __name__.partition(".")[0]


def caution(message: str) -> None:
    """A UserWarning at the innermost frame outside this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


class Adviser:
    """Warns of known mistakes, of each kind once in the life of a trainer."""

    def __init__(self) -> None:
        self.given: set[str] = set()

    def advise(self, remedy: str, problem: str) -> None:
        """Warn, unless this remedy was given before.

        Args:
            remedy: key of `REMEDIES`.
            problem: what is wrong, as a sentence.
        """
        if remedy not in self.given:
            self.given.add(remedy)
            caution(f"{problem} To mend it, {REMEDIES[remedy]}.")

    def on_model(self, model: Any, ref_model: Any) -> None:
        """Weights in float16; a PEFT policy whose start is not its reference."""
        if model.backbone.dtype == torch.float16:
            self.advise(
                "R6",
                "PPOTrainer: the policy's weights are float16, perhaps the dtype of its file. "
                "In float16 T5 overflows and the steps of Adam vanish.",
            )
        if model.is_peft_model and ref_model is None and adapter_is_moved(model):
            self.advise(
                "R1",
                "PPOTrainer: the adapter already changes the model and ref_model is None. The "
                "reference is then the model without its adapter, and KL does not start at 0.",
            )

    def on_generation(self, options: dict[str, Any], defaults: Any) -> None:
        """Sampling from another distribution than `step` scores."""
        if not options.get("do_sample", getattr(defaults, "do_sample", False)):
            return
        used = {name: options.get(name, getattr(defaults, name, None)) for name in NEUTRAL}
        wrong = [
            f"{name}={value}"
            for name, value in used.items()
            if value is not None and value != NEUTRAL[name] and not (value < 0 and "min" in name)
        ]
        if wrong:
            self.advise(
                "R2",
                f"generate: responses are sampled with {', '.join(wrong)}, but step() takes the "
                "logprobs of the plain distribution. Ratio and KL are then wrong.",
            )

    def on_responses(
        self, queries: Sequence[Tensor], responses: Sequence[Tensor], encoder_decoder: bool
    ) -> None:
        """Queries, or their ends, inside the responses of a decoder-only model."""
        if encoder_decoder:
            return
        pairs = list(zip(queries, responses, strict=True))
        if all(len(r) > len(q) >= OVERLAP and torch.equal(r[: len(q)], q) for q, r in pairs):
            self.advise(
                "R3",
                "step: every response begins with its whole query, which is then scored and "
                "trained as if the policy had written it.",
            )
            return
        row = next((row for row, (q, r) in enumerate(pairs) if _begins_inside(q, r)), None)
        if row is not None:
            self.advise(
                "R4",
                f"step: response {row} begins with the end of its query. Cutting the "
                "last max_new_tokens off the output reaches into the query where a response ended "
                "early.",
            )

    def on_kl(self, kl: float) -> None:
        """A mean KL that no true KL can be."""
        if kl < -1.0:
            self.advise(
                "R2",
                f"step: the mean KL to the reference is {kl:.2f} nats per response, and a true KL "
                "is never below 0. Responses were sampled from another distribution than step() "
                "scores.",
            )


def _begins_inside(query: Tensor, response: Tensor) -> bool:
    """True if a response begins with the last tokens of its query."""
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
