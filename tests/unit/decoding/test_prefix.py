"""The civil line is read by the model alone, in front of the very ids of plain decoding."""

import pytest
import torch
from transformers import AutoTokenizer

from lora_detox.chat import ChatFormat
from lora_detox.decoding.prefix import CivilPrefix
from lora_detox.embedded import embedded_path
from lora_detox.prompts.batching import fixed_batches
from lora_detox.prompts.rows import PromptRow
from lora_detox.prompts.templates import parse_template
from tests.unit.test_chat import TEMPLATES, chat_tokenizer

LINE = "Be civil."
PROMPTS = ["you never listen to anyone", "well"]


def rows():
    return [
        PromptRow(row_id=str(i), prompt=text, references=[], toxicity=None)
        for i, text in enumerate(PROMPTS)
    ]


def encoded(tokenizer, side, *, special, chat=None):
    (batch,) = fixed_batches(
        rows(),
        tokenizer,
        template=parse_template("{prompt}", chat=chat),
        max_query_tokens=256,
        padding_side=side,
        batch_size=2,
        add_special_tokens=special,
    )
    return batch


@pytest.mark.parametrize(("name", "side"), [("gptj", "left"), ("t5", "right")])
def test_line_then_the_ids_of_the_prompt(name, side):
    tokenizer = AutoTokenizer.from_pretrained(embedded_path(name))
    tokenizer.padding_side = side
    batch = encoded(tokenizer, side, special=name == "t5")
    longer = CivilPrefix(tokenizer, LINE).prefixed(batch)
    line = tokenizer(LINE + "\n", add_special_tokens=False).input_ids
    for row in range(2):
        plain = batch.query_ids[row][batch.query_mask[row]].tolist()
        assert longer.query_ids[row][longer.query_mask[row]].tolist() == [*line, *plain]
        last = longer.query_mask[row][-1 if side == "left" else 0]
        assert bool(last)
    assert (longer.texts, longer.references, longer.row_ids) == (
        batch.texts,
        batch.references,
        batch.row_ids,
    )


def test_what_stands_before_every_text_stays_first():
    tokenizer = AutoTokenizer.from_pretrained(embedded_path("gptj"))
    tokenizer.padding_side = "left"
    prefix = CivilPrefix(tokenizer, LINE)
    prefix.head_ids = [tokenizer.bos_token_id]
    batch = encoded(tokenizer, "left", special=False)
    with_bos = torch.cat([torch.full((2, 1), tokenizer.bos_token_id), batch.query_ids[:, -1:]], 1)
    longer = prefix.prefixed(
        type(batch)(
            texts=batch.texts,
            query_ids=with_bos,
            query_mask=torch.ones(2, 2, dtype=torch.bool),
            references=batch.references,
            row_ids=batch.row_ids,
        )
    )
    assert longer.query_ids[:, 0].tolist() == [tokenizer.bos_token_id] * 2
    assert longer.query_ids[:, 1 : 1 + len(prefix.line_ids)].tolist() == [prefix.line_ids] * 2


@pytest.mark.parametrize("name", TEMPLATES)
def test_in_a_chat_the_line_begins_the_users_message(name):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    tokenizer.padding_side = "left"
    chat = ChatFormat(tokenizer, "Be kind.")
    batch = encoded(tokenizer, "left", special=False, chat=chat)
    longer = CivilPrefix(tokenizer, LINE, chat).prefixed(batch)
    for row, prompt in enumerate(PROMPTS):
        ids = longer.query_ids[row][longer.query_mask[row]]
        rendered, _, _ = chat.render(f"{LINE}\n{prompt}")
        whole = tokenizer(rendered, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == tokenizer.decode(whole)
