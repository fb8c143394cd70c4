"""Whether the prompts and responses of a run fit its model, found out before weights load.

Tokens are counted in what the run will really read, and only where the settings alone do not show
that everything fits.
"""

from collections.abc import Iterator
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_detox.builders.data import EncodedPrompts
from lora_detox.builders.examples import check_references, training_examples
from lora_detox.choices import Stage, TrainerKind
from lora_detox.policy.tokenizer import check_inside
from lora_detox.positions import always_fits, check_positions
from lora_detox.progress import track
from lora_detox.prompts import PromptSets
from lora_detox.settings import Settings
from lora_detox.special_tokens import embedding_rows, ids_outside
from lora_detox.types import PromptBatch


def check_run(
    settings: Settings,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    data: PromptSets,
    encoded: EncodedPrompts,
) -> None:
    """Every prompt and response of a run fits the model's positions and its embedding.

    Args:
        settings: composed and checked.
        config: of the policy.
        tokenizer: of the policy.
        data: rows of the three splits.
        encoded: the same as the policy reads them.

    Raises:
        SettingsError: one does not; names the key to lower, or the token.
    """
    response = settings.generation.response_tokens[1]
    trained = settings.algorithm.trainer.kind is not TrainerKind.native
    reads_last = settings.stage is Stage.detox and trained
    audited = [] if encoded.audit is None else [encoded.audit]
    for batch in (encoded.validation, encoded.test, *audited):
        check_batch(config, tokenizer, batch, response)
    if settings.stage is Stage.detox:
        fits = always_fits(config, settings.data.max_query_tokens, response)
        if not fits or ids_outside(tokenizer, embedding_rows(config)):
            for batch in _training_batches(settings, encoded):
                check_batch(config, tokenizer, batch, response, reads_last=reads_last)
    if settings.stage is Stage.sft:
        _check_examples(settings, config, tokenizer, data)


def check_batch(
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    batch: PromptBatch,
    response: int,
    *,
    reads_last: bool = False,
    query_key: str = "data.max_query_tokens",
    response_key: str = "generation.response_tokens",
) -> None:
    """The prompts of a batch, with responses of at most `response` tokens, fit the model.

    Args:
        config: of the model.
        tokenizer: that encoded the prompts.
        batch: prompts as ids.
        response: most tokens of a response.
        reads_last: True where the model also reads the last token of a response.
        query_key: setting that bounds a prompt.
        response_key: setting that bounds the response.

    Raises:
        SettingsError: as `check_run`.
    """
    longest = int(batch.query_mask.sum(dim=1).max())
    keys = {"query_key": query_key, "response_key": response_key}
    check_positions(config, longest, response, **keys, reads_last=reads_last)
    _check_ids(tokenizer, batch.query_ids[batch.query_mask], embedding_rows(config))


def _check_ids(tokenizer: PreTrainedTokenizerBase, ids: Int[Tensor, "N"], rows: int | None) -> None:
    if len(ids):
        check_inside(tokenizer, [int(ids.max())], rows)


def _training_batches(settings: Settings, encoded: EncodedPrompts) -> Iterator[PromptBatch]:
    """The prompts of all iterations, and of the rollouts that a budget starts with."""
    count = settings.algorithm.iterations + settings.budget.controller.start_rollouts
    if settings.debug.reuse_first_batch:
        count = 1
    yield from map(encoded.train.batch, track(range(count), "counting tokens", count))


def _check_examples(
    settings: Settings, config: Any, tokenizer: PreTrainedTokenizerBase, data: PromptSets
) -> None:
    """The examples of stage=sft, whose every token is read; DataError where there are none."""
    both, most = bool(config.is_encoder_decoder), settings.sft.max_response_tokens
    check_references(data.train, settings, encoder_decoder=both)
    fits = always_fits(config, settings.data.max_query_tokens, most)
    rows = embedding_rows(config), embedding_rows(config, decoder=True)
    if fits and not (ids_outside(tokenizer, rows[0]) or ids_outside(tokenizer, rows[1])):
        return
    chosen = data.validation[: settings.evaluation.validation_prompts]
    for example in training_examples(
        [*data.train, *chosen], tokenizer, settings, encoder_decoder=both
    ):
        ids = example["input_ids"]
        target = len(example["labels"]) if both else example["completion_mask"].count(1)
        check_positions(
            config,
            len(ids) if both else len(ids) - target,
            target,
            response_key="sft.max_response_tokens",
            reads_last=True,
        )
        check_inside(tokenizer, [max(ids)], rows[0])
        check_inside(tokenizer, [max(example.get("labels", [0]))], rows[1])
