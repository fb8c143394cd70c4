"""Stage 2: PromptBatch + policy -> Rollout."""

from lora_detox.rollout.collect import collect_rollout, rollout_of_start
from lora_detox.rollout.generation import Generate, Responses, generate_responses
from lora_detox.rollout.mismatch import Mismatch, mismatch_of
from lora_detox.rollout.passes import Passes
from lora_detox.rollout.vllm import VllmRollouts
from lora_detox.rollout.vllm_server import VllmServer

__all__ = [
    "Generate",
    "Mismatch",
    "Passes",
    "Responses",
    "VllmRollouts",
    "VllmServer",
    "collect_rollout",
    "generate_responses",
    "mismatch_of",
    "rollout_of_start",
]
