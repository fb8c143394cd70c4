"""Stage 6: texts and tensors -> numbers, and how sure one can be of a change.

`measure` makes an `Evaluation`, `summary` the numbers of `summary.json`, the paired intervals
between two of them, and what counted as a word. `names` is the only home of metric key strings.
`rouge` and `toxicity` are the same measures as `evaluate` modules. Import what you need from its
file, because PyTorch and the `evaluate` library take seconds to import.
"""
