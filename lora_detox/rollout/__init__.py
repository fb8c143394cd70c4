"""Stage 2: PromptBatch + policy -> Rollout."""

from lora_detox.rollout.collect import collect_rollout, rollout_of_start
from lora_detox.rollout.generation import Generate, Responses, generate_responses
from lora_detox.rollout.passes import Passes

__all__ = [
    "Generate",
    "Passes",
    "Responses",
    "collect_rollout",
    "generate_responses",
    "rollout_of_start",
]
