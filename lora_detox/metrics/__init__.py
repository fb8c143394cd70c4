"""Stage 6: texts and tensors -> numbers, and how sure one can be of a change.

`measure_responses` makes an `Evaluation`, `summarise` the numbers of `summary.json`, `change` the
paired intervals between two of them; `word_rules` says what counted as a word. `names` is the only
home of metric key strings. `Rouge` and `Toxicity` are the same measures as `evaluate` modules;
import them from their files, because the `evaluate` library takes seconds to import.
"""

from lora_detox.metrics.measure import measure_responses
from lora_detox.metrics.summary import change, summarise, word_rules

__all__ = ["change", "measure_responses", "summarise", "word_rules"]
