"""Rows with references -> examples of supervised fine-tuning, as token ids."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from lora_detox.builders.data import prompt_template
from lora_detox.errors import DataError
from lora_detox.progress import track
from lora_detox.prompts import PromptRow
from lora_detox.prompts.templates import apply_template
from lora_detox.settings import Settings
from lora_detox.special_tokens import tokens_around

Example = dict[str, list[int]]


def check_references(
    rows: Iterable[PromptRow], settings: Settings, *, encoder_decoder: bool
) -> bool:
    """Some row has a reference, where an answer is asked for.

    Args:
        rows: of one split.
        settings: composed and checked.
        encoder_decoder: whether the target has a sequence of its own.

    Returns:
        Whether an answer is asked for: by an encoder-decoder, or in a chat.

    Raises:
        DataError: no row has one.
    """
    answers = encoder_decoder or settings.task.chat
    if answers and not any(row.references for row in rows):
        raise DataError(
            "stage=sft learns from references and no row has one; name their column with "
            "`data.fields.references`"
        )
    return answers


def training_examples(
    rows: Iterable[PromptRow],
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    *,
    encoder_decoder: bool,
) -> list[Example]:
    """One example per reference; a row without one is text to be continued as it stands.

    Where an answer is asked for, by an encoder-decoder or in a chat, such a row is left out.

    Args:
        rows: of one split.
        tokenizer: of the policy.
        settings: template, windows and bounds are read.
        encoder_decoder: whether the target has a sequence of its own.

    Returns:
        `input_ids` and `labels` for encoder-decoders; `input_ids` and `completion_mask` (1 where
        the loss is taken) for decoders. Targets end with end-of-sequence, in a chat with what ends
        a message of the model.

    Raises:
        DataError: no row has a reference, which an encoder-decoder or a chat learns from.
    """
    rows = list(rows)
    answers = check_references(rows, settings, encoder_decoder=encoder_decoder)
    template, most = prompt_template(settings, tokenizer), settings.sft.max_response_tokens
    turn_end = None if template.chat is None else template.chat.turn_end
    eos = int(tokenizer.eos_token_id) if turn_end is None else turn_end
    prefix, _ = tokens_around(tokenizer)
    examples = []
    for row in track(rows, "tokenizing", len(rows)):
        targets = row.references or ([] if answers else [""])
        for target in targets:
            query = apply_template(
                row.prompt,
                tokenizer,
                template=template,
                max_query_tokens=settings.data.max_query_tokens,
                add_special_tokens=encoder_decoder,
                prefix=prefix,
            ).ids
            target_ids = tokenizer(target, add_special_tokens=False, truncation=False)["input_ids"]
            response = [*list(target_ids)[: most - 1], eos]
            if encoder_decoder:
                examples.append({"input_ids": query, "labels": response})
                continue
            first = 1 if target else 0  # of a bare text every token is learned
            mask = [1 - first] * len(query) + [1] * len(response)
            examples.append({"input_ids": [*query, *response], "completion_mask": mask})
    return examples
