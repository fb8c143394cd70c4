"""ROUGE as an `evaluate` metric.

`evaluate.load("rouge")` fetches a script from the hub at run time; this module needs no network.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from lora_detox.metrics.overlap import rouge_per_response

__all__ = ["Rouge", "rouge_per_response"]


class Rouge(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """ROUGE as an `evaluate` metric that works offline and leaves nothing in the cache.

    `compute(predictions=..., references=...)` takes one string or a list of strings per reference
    and returns the mean F of `rouge1`, `rouge2`, `rougeL` and `rougeLsum`; with
    `use_aggregator=False` it returns the lists per prediction.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _build_data_dir(self) -> str:
        # The parent makes a cache folder even if everything stays in memory.
        return "" if self.keep_in_memory else str(super()._build_data_dir())

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE-1, -2, -L and -Lsum F with Porter stemming; the best reference.",
            citation="Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries",
            inputs_description="predictions: texts; references: a text or several for each.",
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str | Sequence[str]],
        use_aggregator: bool = True,
    ) -> dict[str, float] | dict[str, list[float]]:
        listed = [[one] if isinstance(one, str) else list(one) for one in references]
        per_response = rouge_per_response(predictions, listed)
        if not use_aggregator:
            return per_response
        return {key: float(np.mean(values)) for key, values in per_response.items()}
