"""Decodings that change how a policy computes while it writes, and nothing after."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.session import EditFactory
from lora_detox.rollout import Responses, generate_responses
from lora_detox.types import Policy, PromptBatch, Sampling


class ContextDecoding:
    """Writes as usual within a context; a `Generate`.

    Args:
        context: opened for each set of responses; what it changes is undone at its end.
    """

    def __init__(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        self.context = context

    def __call__(
        self, policy: Policy, prompts: PromptBatch, sampling: Sampling, **generation: Any
    ) -> Responses:
        """Answer the prompts within the context."""
        with self.context():
            return generate_responses(policy, prompts, sampling, **generation)


@contextmanager
def edited(policy: LoraPolicy, edit_logits: EditFactory) -> Iterator[None]:
    """Within this context the logits of a policy are edited before each draw.

    Args:
        policy: that writes.
        edit_logits: makes the edit of a batch.
    """
    policy.edit_logits = edit_logits
    try:
        yield
    finally:
        policy.edit_logits = None
