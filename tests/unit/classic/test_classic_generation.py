"""PPOTrainer.generate: batches, ends, keywords of old programs, the reference's responses."""

import numpy as np
import pytest
import torch

from tests.tiny import ARCHITECTURES, tiny_tokenizer
from tests.unit.classic.programs import (
    SAMPLE,
    policy,
    quiet_trainer,
    some_queries,
    some_scores,
)

GREEDY = {"do_sample": False, "max_new_tokens": 6}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_batches_equal_single_rows(architecture):
    trainer = quiet_trainer(policy(architecture))
    queries = some_queries((4, 7, 3, 5, 6))
    rows = trainer.generate(queries, batch_size=3, **GREEDY)
    assert isinstance(rows, list)
    for query, row in zip(queries, rows, strict=True):
        single = trainer.generate(query, **GREEDY)
        assert single.dim() == 2
        assert single.shape[0] == 1
        assert torch.equal(single[0, : len(row)], row)
        rest = single[0, len(row) :]
        assert len(rest) == 0 or row[-1] == 1
        if architecture != "t5":
            assert torch.equal(row[: len(query)], query)
    without = trainer.generate(queries, batch_size=3, return_prompt=False, **GREEDY)
    for query, row, short in zip(queries, rows, without, strict=True):
        cut = 0 if architecture == "t5" else len(query)
        assert torch.equal(row[cut:], short)


def test_generation_ends_at_the_first_end_of_sequence_of_the_response():
    trainer = quiet_trainer(policy())
    query = torch.tensor([5, 1, 6])  # end-of-sequence inside the query ends nothing
    row = trainer.generate([query], do_sample=False, max_new_tokens=4)[0]
    assert torch.equal(row[:3], query)
    assert len(row) > 3
    head = trainer.model.pretrained_model.lm_head
    head.bias = torch.nn.Parameter(torch.zeros(40))
    head.bias.data[1] = 1e4  # the model now always ends
    rows = trainer.generate(some_queries(), return_prompt=False, **GREEDY)
    assert [r.tolist() for r in rows] == [[1]] * 4


@pytest.mark.parametrize("place", ["generation_config", "keywords"])
def test_a_response_is_cut_at_every_end_that_generate_stops_at(place):
    trainer = quiet_trainer(policy())
    backbone = trainer.model.pretrained_model
    backbone.lm_head.bias = torch.nn.Parameter(torch.zeros(40))
    backbone.lm_head.bias.data[[7, 8]] = 1e4  # two ends beside the tokenizer's own
    ends = {"eos_token_id": [1, 7, 8]}
    if place == "generation_config":
        trainer.model.backbone.generation_config.eos_token_id = ends.pop("eos_token_id")
    queries = some_queries((4, 7, 3, 5))
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": 6}
    rows = trainer.generate(queries, batch_size=4, return_prompt=False, **options, **ends)
    assert {row.item() for row in rows} <= {7, 8}  # one token each, nothing of the padding
    # -1 is how old programs never stop
    never = trainer.generate(queries, batch_size=4, **GREEDY, eos_token_id=-1)
    assert [len(row) for row in never] == [10, 13, 9, 11]


def test_generation_keywords_of_old_programs():
    trainer = quiet_trainer(policy())
    lengths = iter((2, 3))
    rows = trainer.generate(
        some_queries(),
        length_sampler=lambda: np.int64(next(lengths)),
        batch_size=2,
        return_prompt=False,
        **(SAMPLE | {"min_new_tokens": 2, "min_length": 5, "pad_token_id": 0}),
    )
    assert [len(r) for r in rows[:2]] == [2, 2]
    assert all(2 <= len(r) <= 3 for r in rows[2:])
    with pytest.raises(ValueError, match="shape"):
        trainer.generate(torch.zeros(1, 3, dtype=torch.long))


def test_the_pad_token_may_be_set_later():
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    trainer = quiet_trainer(policy(), tokenizer=tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    rows = trainer.generate(some_queries(), return_prompt=False, **GREEDY)
    queries = some_queries()
    stats = trainer.step(queries, rows, some_scores())
    assert np.isfinite(stats["ppo/loss/total"])
    assert trainer.pad_id == 1


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_reference_responses(architecture, lora):
    model = policy(architecture, lora=lora)
    trainer = quiet_trainer(model)
    queries = some_queries()
    before = trainer.generate(queries, **GREEDY)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "v_head" not in name:
            torch.nn.init.normal_(parameter, std=0.5)
    new, old = trainer.generate(queries, generate_ref_response=True, **GREEDY)
    assert all(torch.equal(a, b) for a, b in zip(old, before, strict=True))
    assert not all(a.tolist() == b.tolist() for a, b in zip(new, before, strict=True))
    _, single = trainer.generate(queries[0], generate_ref_response=True, **GREEDY)
    assert torch.equal(single[0, : len(before[0])], before[0])


def test_generation_has_no_dropout_and_leaves_mode_and_weights_alone():
    model = policy(lora=True).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    trainer = quiet_trainer(model)
    addresses = {n: p.data_ptr() for n, p in model.named_parameters()}
    kept = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows = [trainer.generate(some_queries()[0], **GREEDY) for _ in range(3)]
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == addresses[name]
        assert torch.equal(parameter, kept[name])
    ids = rows[0][:, :4]
    for _ in range(6):  # merged weights write what the adapters write
        ids = torch.cat([ids, model.eval()(ids)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(rows[0], ids[:, : rows[0].shape[1]])
