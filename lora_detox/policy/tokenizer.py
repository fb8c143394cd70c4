"""The policy's tokenizer, as its family and its batches need it."""

import os
from typing import Any

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from lora_detox.chat import ChatFormat, check_chat
from lora_detox.errors import SettingsError
from lora_detox.machine import bound_word_cache
from lora_detox.model_files import wants_code
from lora_detox.policy.families import family_of
from lora_detox.policy.preflight import BackbonePlan, code_refused
from lora_detox.policy.token_ids import end_token_ids, generation_defaults
from lora_detox.special_tokens import choose_padding, embedding_rows, is_inside, tokens_around


def load_tokenizer(plan: BackbonePlan, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, padded as its family needs, with a pad token.

    Args:
        plan: where it is.
        config: of the model; ids outside its embedding are found here, and an encoder-decoder
            without padding id is given the tokenizer's.

    Returns:
        The tokenizer. A padding token that is missing or outside the embedding is replaced by
        end-of-sequence: padding is masked by lengths.

    Raises:
        SettingsError: there is no end-of-sequence token, a token that every prompt or response
            holds is outside the embedding, or prompts cannot be chats.
    """
    tokenizer = _read_tokenizer(plan)
    if plan.chat:
        check_chat(tokenizer, plan.system, encoder_decoder=bool(config.is_encoder_decoder))
    family = family_of(config)
    tokenizer.padding_side = family.padding_side
    if tokenizer.eos_token_id is None:
        ends = end_token_ids(tokenizer, config, generation_defaults(plan.path, plan.revision))
        if not ends:
            raise SettingsError(
                f"policy.path: the tokenizer of {plan.path} has no end-of-sequence token"
            )
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    bound_word_cache(tokenizer)
    queries, responses = (embedding_rows(config, decoder=part) for part in (False, True))
    before, after = tokens_around(tokenizer)
    check_inside(tokenizer, before + (after if family.add_special_tokens else []), queries)
    turn_end = [end] if (end := _turn_end(plan, tokenizer)) is not None else []
    check_inside(tokenizer, [tokenizer.eos_token_id, *turn_end], responses)
    for rows in (queries, responses):
        choose_padding(tokenizer, rows, [tokenizer.eos_token_id])
    if config.is_encoder_decoder and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id  # labels are shifted behind it in training
    return tokenizer


def _read_tokenizer(plan: BackbonePlan) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            os.path.expanduser(plan.path),
            revision=plan.revision,
            trust_remote_code=plan.trust_remote_code,
        )
    except Exception as error:  # tokenizers raises nothing more special
        if wants_code(error) and not plan.trust_remote_code:
            raise code_refused(plan.path) from error
        lines = str(error).strip().splitlines() or [""]
        raise SettingsError(
            f"policy.path: cannot read the tokenizer of {plan.path} "
            f"({type(error).__name__}: {lines[0][:200]}); want the folder as save_pretrained of "
            "model and tokenizer wrote it"
        ) from error
    return tokenizer


def response_ends(
    plan: BackbonePlan, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[int, ...]:
    """All ids that end a response, that of the chat template included where prompts are chats.

    Args:
        plan: where the model is.
        tokenizer: of the model.
        config: of the model.

    Returns:
        Ids, the tokenizer's own end first.
    """
    ends = end_token_ids(tokenizer, config, generation_defaults(plan.path, plan.revision))
    turn_end = _turn_end(plan, tokenizer)
    return ends if turn_end is None else tuple(dict.fromkeys((*ends, turn_end)))


def _turn_end(plan: BackbonePlan, tokenizer: PreTrainedTokenizerBase) -> int | None:
    return ChatFormat(tokenizer, plan.system).turn_end if plan.chat else None


def check_inside(tokenizer: PreTrainedTokenizerBase, ids: list[int], rows: int | None) -> None:
    """Every id has a row of the embedding.

    Args:
        tokenizer: that made the ids, for the message.
        ids: token ids.
        rows: of the embedding; None where the configuration does not say.

    Raises:
        SettingsError: an id is outside; names it, its token and what to do.
    """
    outside = next((one for one in ids if not is_inside(one, rows)), None)
    if outside is None:
        return
    token: Any = tokenizer.convert_ids_to_tokens(outside)
    raise SettingsError(
        f"policy.path: the tokenizer gives token {token!r} the id {outside}, but the model's "
        f"embedding has {rows} rows (ids 0 to {(rows or 1) - 1}); want a model that was resized to "
        "its tokenizer (model.resize_token_embeddings(len(tokenizer)) and save_pretrained)"
    )
