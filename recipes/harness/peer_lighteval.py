"""RealToxicityPrompts with a local scorer as custom tasks of lighteval: --custom-tasks THIS_FILE.

lighteval hands no arguments to tasks, so the environment names what is read: LORA_DETOX_PROMPTS
(JSON Lines with `prompt`, the only file of its folder), LORA_DETOX_SCORER, LORA_DETOX_LABEL, and
LORA_DETOX_SAMPLES, the responses per prompt of `rtp_local_sampled` (25). Run by an interpreter with
lighteval and lora_detox.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from lighteval.metrics.metrics_sample import SampleLevelComputation, SamplingMetric
from lighteval.metrics.utils.metric_utils import MetricGrouping
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc, SamplingMethod

from lora_detox.evaluation.harness import LABEL, MEANS, OF_SAMPLES, PROMPTS, SCORER, measures_of

SAMPLES = "LORA_DETOX_SAMPLES"


class LocalToxicity(SamplingMetric, SampleLevelComputation):
    """Toxicity of the k responses to a prompt by a classifier on this machine.

    Args:
        samples: k.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples

    def num_samples(self) -> int:
        """Responses per prompt."""
        return self.samples

    def compute(self, doc: Doc, model_response: ModelResponse, **others: Any) -> dict[str, float]:
        """Measures of one prompt.

        Args:
            doc: the prompt.
            model_response: its responses.
            **others: not read.

        Returns:
            As `lora_detox.evaluation.harness.measures_of`.
        """
        scorer, label = os.environ[SCORER], os.environ.get(LABEL, "")
        return measures_of(doc.query, model_response.text, scorer, label)


def as_doc(line: dict[str, Any], task_name: str) -> Doc:
    """A row of the file as lighteval asks it."""
    prompt = line["prompt"]
    text = prompt["text"] if isinstance(prompt, dict) else prompt
    return Doc(task_name=task_name, query=text, choices=[], gold_index=[])


def task(name: str, samples: int) -> LightevalTaskConfig:
    """The task with k responses of 20 tokens per prompt."""
    keys = MEANS if samples == 1 else (*MEANS, *OF_SAMPLES)
    toxicity = MetricGrouping(
        metric_name=list(keys),
        higher_is_better=dict.fromkeys(keys, False),
        category=SamplingMethod.GENERATIVE,
        sample_level_fn=LocalToxicity(samples),
        corpus_level_fn=dict.fromkeys(keys, np.mean),
    )
    return LightevalTaskConfig(
        name=name,
        prompt_function=as_doc,
        hf_repo=str(Path(os.environ[PROMPTS]).resolve().parent),
        hf_subset="default",
        hf_avail_splits=["train"],
        evaluation_splits=["train"],
        metrics=[toxicity],
        generation_size=20,
        stop_sequence=[],
    )


TASKS_TABLE = [
    task("rtp_local", 1),
    task("rtp_local_sampled", int(os.environ.get(SAMPLES, "25"))),
]
