"""Stage 2: PromptBatch + policy -> Rollout."""

from lora_detox.rollout.collect import collect_rollout
from lora_detox.rollout.generation import Responses, generate_responses

__all__ = ["Responses", "collect_rollout", "generate_responses"]
