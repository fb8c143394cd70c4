"""Stage 1 of the arrow: dataset rows -> PromptBatch.

`load_prompt_sets` is the one entry to data: it reads a source, filters by toxicity, splits so that
no evaluation text is trained on, and says what it dropped. `PromptSampler` turns the training rows
into one PromptBatch per iteration, `fixed_batches` the evaluation rows into the same batches for
every run.

Files: `load` (the entry), `reading` and `holding` (how much is held), `sources` (where rows come
from), `files` (which reader), `text_file`,
`csv_file`, `json_file`, `arrow_file`, `excel_file`, `hub` (the readers), `rows` (the records),
`columns` (which one is what), `values` (what a cell holds), `dialogues` (lists of turns or of
prompts), `fields` (columns -> PromptRow), `splits` (train, validation, test), `templates` (prompt
-> ids within a window), `batching` (ids -> PromptBatch), `stored` (what took long is kept).
Import what needs PyTorch, batches and templates, from its file: rows are read without it.
"""

from lora_detox.prompts.load import load_prompt_sets
from lora_detox.prompts.rows import LoadReport, PromptRow, PromptSets

__all__ = ["LoadReport", "PromptRow", "PromptSets", "load_prompt_sets"]
