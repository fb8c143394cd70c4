"""Templates, windows and batches."""

import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer

from lora_detox.errors import DataError
from lora_detox.prompts import PromptRow
from lora_detox.prompts.batching import PromptSampler, fixed_batches, repeat_prompts
from lora_detox.prompts.templates import apply_template, parse_template
from tests.unit.prompts.conftest import train_tokenizer

TEMPLATE = "Summarize the following conversation.\n\n{prompt}\n\nSummary:\n"
PROMPT = "one two three four five six seven eight nine ten " * 6


def rows(count):
    return [
        PromptRow(row_id=str(i), prompt=f"{PROMPT}{i}", references=[f"r{i}"], toxicity=None)
        for i in range(count)
    ]


def encode(text, tokenizer, special=False):
    return tokenizer(text, truncation=False, add_special_tokens=special)["input_ids"]


def apply(prompt, tokenizer, template=TEMPLATE, window=64, special=False, prompt_tokens=None):
    return apply_template(
        prompt,
        tokenizer,
        template=parse_template(template),
        max_query_tokens=window,
        prompt_tokens=prompt_tokens,
        add_special_tokens=special,
    )


def make_sampler(tokenizer, data, **changes):
    settings = {
        "template": "{prompt}",
        "max_query_tokens": 64,
        "padding_side": "left",
        "batch_size": 4,
        "seed": 3,
        "add_special_tokens": False,
    }
    return PromptSampler(data, tokenizer, **{**settings, **changes})


def test_short_prompt_is_left_alone(tokenizer):
    encoded = apply("the  cat", tokenizer)
    assert encoded.text == TEMPLATE.replace("{prompt}", "the  cat")
    assert encoded.ids == encode(encoded.text, tokenizer)
    assert len(encoded.ids) > 8  # the tokenizer's stored truncation is not used
    assert not encoded.was_cut
    assert encoded.source == "the  cat"


def test_the_source_is_the_prompt_alone_after_the_cut(tokenizer, t5_tokenizer):
    for one, special in ((tokenizer, False), (t5_tokenizer, True)):
        cut = apply(PROMPT, one, window=40, special=special)
        assert cut.was_cut
        assert PROMPT.startswith(cut.source.strip())
        assert cut.source.strip()
        assert cut.source in cut.text
        assert "Summar" not in cut.source
    (batch,) = fixed_batches(
        rows(2),
        tokenizer,
        template=TEMPLATE,
        max_query_tokens=64,
        padding_side="left",
        batch_size=2,
        add_special_tokens=False,
    )
    assert len(batch.sources) == 2
    assert all("Summar" not in source for source in batch.sources)
    twice = repeat_prompts(batch, 2)
    assert twice.sources == [batch.sources[0]] * 2 + [batch.sources[1]] * 2


@pytest.mark.parametrize("window", [40, 48, 49, 64])
def test_window_keeps_the_tail_whole(t5_tokenizer, window):
    encoded = apply(PROMPT, t5_tokenizer, window=window, special=True)
    assert encoded.was_cut
    assert len(encoded.ids) == window
    assert encoded.ids[-1] == t5_tokenizer.eos_token_id
    assert encoded.text.endswith("\n\nSummary:\n")
    head = "Summarize the following conversation.\n\n"
    assert encoded.text.startswith(head)
    kept = encoded.text.removeprefix(head).removesuffix("\n\nSummary:\n")
    assert kept
    assert PROMPT.startswith(kept)
    whole = encode(TEMPLATE.replace("{prompt}", PROMPT), t5_tokenizer, special=True)
    tail = len(encode("\n\nSummary:\n", t5_tokenizer))
    assert encoded.ids[: window - tail - 1] == whole[: window - tail - 1]


def test_cut_ends_with_a_whole_character(tokenizer):
    for count in range(1, 30):
        encoded = apply("café 😂 naïve 😂 ok", tokenizer, "{prompt}", prompt_tokens=count + 3)
        assert "\ufffd" not in encoded.text
        assert encode(encoded.text, tokenizer)[:3] == encoded.ids[:3]


def test_prompt_tokens_cut_is_a_prefix_of_the_ids(tokenizer):
    encoded = apply(PROMPT, tokenizer, "{prompt}", prompt_tokens=7)
    assert encoded.ids == encode(PROMPT, tokenizer)[:7]
    assert encoded.text == tokenizer.decode(encoded.ids)


def test_window_too_small_for_the_template(tokenizer):
    with pytest.raises(DataError, match=r"no room for a prompt.*data\.max_query_tokens"):
        apply(PROMPT, tokenizer, window=10)


@pytest.mark.parametrize(
    "template", ["no field", "{dialogue}", "{prompt} {prompt}", "{prompt!r}", "{}", "{prompt"]
)
def test_wrong_templates(template):
    with pytest.raises(DataError, match=r"`task\.template`"):
        parse_template(template)


def test_braces_in_a_template():
    parsed = parse_template('{{"a": "{prompt}"}}')
    assert (parsed.head, parsed.tail) == ('{"a": "', '"}')


def test_every_row_once_per_epoch_and_batches_cross_borders(tokenizer):
    sampler = make_sampler(tokenizer, rows(10), batch_size=4)
    seen = [row_id for i in range(5) for row_id in sampler.batch(i).row_ids]
    names = sorted(map(str, range(10)))
    assert sorted(seen[:10]) == names
    assert sorted(seen[10:]) == names
    assert seen[:10] != seen[10:]


def test_batches_are_stateless(tokenizer):
    first = make_sampler(tokenizer, rows(10), query_tokens=(5, 15))
    second = make_sampler(tokenizer, rows(10), query_tokens=(5, 15))
    forward = [first.batch(i) for i in range(6)]
    backward = [second.batch(i) for i in reversed(range(6))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.row_ids == other.row_ids
        assert torch.equal(one.query_ids, other.query_ids)
        assert torch.equal(one.query_mask, other.query_mask)
    reseeded = make_sampler(tokenizer, rows(10), query_tokens=(5, 15), seed=4)
    assert reseeded.batch(0).row_ids != forward[0].row_ids


def test_query_lengths_cover_the_range(tokenizer):
    sampler = make_sampler(tokenizer, rows(50), batch_size=50, query_tokens=(10, 15))
    lengths = {int(n) for i in range(4) for n in sampler.batch(i).query_mask.sum(1)}
    assert lengths == set(range(10, 16))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_texts(tokenizer, side):
    sampler = make_sampler(tokenizer, rows(6), padding_side=side, query_tokens=(3, 12))
    batch = sampler.batch(0)
    assert batch.query_ids.shape == batch.query_mask.shape
    assert batch.query_mask.dtype == torch.bool
    edge = batch.query_mask[:, -1 if side == "left" else 0]
    assert bool(edge.all())
    for text, ids, mask in zip(batch.texts, batch.query_ids, batch.query_mask, strict=True):
        assert tokenizer.decode(ids[mask]) == text
        assert bool((ids[~mask] == tokenizer.pad_token_id).all())


def test_fewer_rows_than_the_batch(tokenizer):
    batch = make_sampler(tokenizer, rows(3), batch_size=8).batch(0)
    assert len(batch.texts) == 8
    assert set(batch.row_ids) == {"0", "1", "2"}
    assert batch.references[0] == [f"r{batch.row_ids[0]}"]


def test_fixed_batches_do_not_depend_on_order_or_count(tokenizer):
    settings = {
        "max_query_tokens": 64,
        "query_tokens": (5, 15),
        "padding_side": "left",
        "batch_size": 4,
        "add_special_tokens": False,
    }
    data = rows(11)
    batches = fixed_batches(data, tokenizer, **settings)
    assert [len(batch.texts) for batch in batches] == [4, 4, 3]
    assert [name for batch in batches for name in batch.row_ids] == [row.row_id for row in data]
    texts = {name: text for b in batches for name, text in zip(b.row_ids, b.texts, strict=True)}
    for batch in fixed_batches(data[::-1], tokenizer, **settings, count=5):
        assert all(
            texts[name] == text for name, text in zip(batch.row_ids, batch.texts, strict=True)
        )
    other = fixed_batches(data, tokenizer, **settings, seed=1)
    assert [b.texts for b in other] != [b.texts for b in batches]


@pytest.mark.parametrize("single", ["<bos> $A", "<bos> $A </s>", "</s> $A", "<bos> <unk> $A </s>"])
def test_what_a_tokenizer_puts_before_a_text_is_put_before_a_decoders_prompt(single):
    special = [("<bos>", 2), ("</s>", 1), ("<unk>", 2)]
    own = train_tokenizer(processors.TemplateProcessing(single=single, special_tokens=special))
    whole = encode("the cat sat", own, special=True)
    ids = whole[:-1] if single.endswith("</s>") else whole  # a suffix would end the text
    before = len(ids) - len(encode("the cat sat", own))
    encoded = apply("the cat sat", own, "{prompt}")
    assert (encoded.ids, encoded.text) == (ids, "the cat sat")
    assert apply("the cat sat", own, "{prompt}", special=True).ids == whole
    long = apply(PROMPT, own, window=48)
    assert len(long.ids) == 48
    assert long.ids[:before] == ids[:before]
    assert long.text.startswith("Summarize the following")
    cut = apply(PROMPT, own, "{prompt}", prompt_tokens=7)
    assert cut.ids == [*ids[:before], *encode(PROMPT, own)[:7]]
    assert apply("", own, "{prompt}").ids == ids[:before]
    batch = make_sampler(own, rows(6), query_tokens=(3, 3)).batch(0)
    assert batch.query_mask.sum(dim=1).tolist() == [before + 3] * 4
    assert batch.query_ids[:, :before].tolist() == [ids[:before]] * 4


def test_a_template_that_begins_with_bos_has_it_once():
    tokenizer = train_tokenizer(
        processors.TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", 2)])
    )
    assert apply("the cat", tokenizer, "<unk>{prompt}").ids == encode("<unk>the cat", tokenizer)


def test_wrong_arguments(tokenizer):
    with pytest.raises(DataError, match=r"no training prompts"):
        make_sampler(tokenizer, [])
    with pytest.raises(DataError, match=r"rollout_batch_size"):
        make_sampler(tokenizer, rows(2), batch_size=0)
    for wrong in ((0, 5), (6, 5)):
        with pytest.raises(DataError, match=r"data\.query_tokens"):
            make_sampler(tokenizer, rows(2), query_tokens=wrong)


def test_lab_t5_tokenizer(lab):
    """Its tokenizer.json truncates at a length of its own; the window is what we say."""
    tokenizer = AutoTokenizer.from_pretrained(lab / "t5-summary")
    prompt = "#Person1#: Hello there.\n#Person2#: Hi.\n" * 60
    encoded = apply(prompt, tokenizer, window=300, special=True)
    assert len(encoded.ids) == 300
    assert encoded.text.endswith("\n\nSummary:\n")
    assert encoded.ids[-1] == tokenizer.eos_token_id


def test_a_prefix_that_is_no_special_token_is_not_shown():
    """Beside the text it would be read as a part of it."""
    plain = train_tokenizer(
        processors.TemplateProcessing(single="one $A", special_tokens=[("one", 300)])
    )
    before = encode("", plain, special=True)
    cut = apply(PROMPT, plain, "{prompt}", prompt_tokens=6)
    assert cut.ids[:1] == before
    assert PROMPT.startswith(cut.text)
