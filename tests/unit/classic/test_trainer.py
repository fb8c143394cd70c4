"""PPOTrainer: construction, generate, the public pieces of a step, and its statistics."""

import contextlib

import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from peft import get_peft_model

from lora_detox import machine
from lora_detox.classic import PPOConfig, PPOTrainer, create_reference_model
from lora_detox.classic.core import logprobs_from_logits
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_tokenizer
from tests.unit.classic.programs import (
    SAMPLE,
    lora_config,
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
    wrapper_of,
)

GREEDY = {"do_sample": False, "max_new_tokens": 6}
SCALARS = (
    "objective/kl", "objective/kl_coef", "objective/entropy", "ppo/mean_non_score_reward",
    "ppo/mean_scores", "ppo/std_scores", "ppo/learning_rate", "ppo/loss/policy", "ppo/loss/value",
    "ppo/loss/total", "ppo/policy/entropy", "ppo/policy/approxkl", "ppo/policy/policykl",
    "ppo/policy/clipfrac", "ppo/policy/advantages_mean", "ppo/returns/mean", "ppo/returns/var",
    "ppo/val/vpred", "ppo/val/error", "ppo/val/clipfrac", "ppo/val/mean", "ppo/val/var",
    "ppo/val/var_explained", "time/ppo/forward_pass", "time/ppo/compute_rewards",
    "time/ppo/compute_advantages", "time/ppo/optimize_step", "time/ppo/calc_stats",
    "time/ppo/total", "tokens/queries_len_mean", "tokens/queries_len_std",
    "tokens/responses_len_mean", "tokens/responses_len_std",
)  # fmt: skip
ARRAYS = {
    "objective/kl_dist": (4,), "objective/logprobs": (4, 10), "objective/ref_logprobs": (4, 10),
    "ppo/policy/advantages": (160,), "ppo/policy/ratio": (160,), "tokens/queries_dist": (4,),
    "tokens/responses_dist": (4,),
}  # fmt: skip


def step(trainer, **options):
    start = (0,) if trainer.is_encoder_decoder else ()
    return trainer.step(some_queries(), some_responses(start=start), some_scores(), **options)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"input_ids": torch.full((3,), index), "query": f"text {index}"}


def as_lists(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_the_dataloader_is_shuffled_and_drops_the_rest():
    trainer = quiet_trainer(policy(), dataset=Rows(), data_collator=as_lists)
    assert len(trainer.dataloader) == 2
    seen = [int(ids[0]) for batch in trainer.dataloader for ids in batch["input_ids"]]
    assert len(set(seen)) == 8
    assert seen != sorted(seen)
    other = trainer.prepare_dataloader(Rows(), as_lists)
    assert len(next(iter(other))["query"]) == 4
    large = quiet_trainer(policy(), dataset=Rows(), batch_size=12, mini_batch_size=4)
    assert len(large.dataloader) == 0


def test_unused_columns_are_removed():
    rows = {"input_ids": [[1, 2]] * 4, "query": ["a"] * 4, "label": [0] * 4, "extra": [1] * 4}
    dataset = datasets.Dataset.from_dict(rows)
    trainer = quiet_trainer(policy(), dataset=dataset, data_collator=as_lists)
    assert set(next(iter(trainer.dataloader))) == {"input_ids", "query", "label"}
    kept = quiet_trainer(
        policy(), dataset=dataset, data_collator=as_lists, remove_unused_columns=False
    )
    assert "extra" in next(iter(kept.dataloader))


def test_config_and_model_are_positional_and_checked():
    config = PPOConfig(batch_size=4, mini_batch_size=2)
    with pytest.warns(UserWarning, match="No dataset"):
        trainer = PPOTrainer(config, policy(), tokenizer=tiny_tokenizer())
    assert trainer.config is config
    for wrong in (
        {"config": {}},
        {"model": policy().pretrained_model},
        {"tokenizer": None},
        {"dataset": [1, 2]},
        {"ref_model": policy().pretrained_model},
        {"lr_scheduler": object()},
    ):
        with pytest.raises(ValueError, match="must be a"), contextlib.suppress(UserWarning):
            PPOTrainer(
                **({"config": config, "model": policy(), "tokenizer": tiny_tokenizer()} | wrong)
            )
    model = policy()
    with pytest.raises(ValueError, match="policy itself"):
        quiet_trainer(model, model)


def test_reference_and_shared_layers_together_warn():
    model = policy()
    config = PPOConfig(batch_size=4, mini_batch_size=2)
    with pytest.warns(UserWarning, match="num_shared_layers has no effect"):
        PPOTrainer(
            config, model, create_reference_model(model), tiny_tokenizer(), dataset=Rows(),
            num_shared_layers=1,
        )  # fmt: skip


def test_attributes():
    trainer = quiet_trainer(policy())
    assert trainer.accelerator.is_main_process
    assert trainer.accelerator.device == trainer.current_device
    assert isinstance(trainer.optimizer.optimizer, torch.optim.Adam)
    assert trainer.optimizer.param_groups[0]["lr"] == 1.41e-5
    assert trainer.lr_scheduler is None
    assert trainer.kl_ctl.value == 0.2
    assert trainer.ref_model is not trainer.model
    assert not any(p.requires_grad for p in trainer.ref_model.parameters())
    lora = quiet_trainer(policy(lora=True))
    assert lora.ref_model is None
    assert lora.is_peft_model
    assert quiet_trainer(policy(), adap_kl_ctrl=False).kl_ctl.update(100.0, 4) is None


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


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_pass_equals_one_plain_forward_per_row(architecture, side):
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = side
    trainer = quiet_trainer(policy(architecture).eval(), tokenizer=tokenizer)
    t5 = architecture == "t5"
    queries, responses = some_queries(), some_responses(start=(0,) if t5 else ())
    inputs = trainer.prepare_model_inputs(queries, responses)
    with torch.no_grad():
        logprobs, none, values, mask = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs
        )
        logits = trainer.batched_forward_pass(
            trainer.model, queries, responses, inputs, return_logits=True
        )[1]
    assert none is None
    width = inputs["decoder_input_ids" if t5 else "input_ids"].shape[1] - 1
    assert logprobs.shape == values.shape == mask.shape == (4, width)
    assert logits.shape == (4, width, 40)
    for row, (query, response) in enumerate(zip(queries, responses, strict=True)):
        with torch.no_grad():
            if t5:
                plain, _, value = trainer.model(query[None], decoder_input_ids=response[None])
                read, first = response, 0
            else:
                read, first = torch.cat([query, response]), len(query) - 1
                plain, _, value = trainer.model(read[None])
        real = mask[row].bool()
        slow = logprobs_from_logits(plain[:, :-1], read[None, 1:])[0, first:]
        close = {"rtol": 1e-4, "atol": 2e-5}
        torch.testing.assert_close(logprobs[row][real], slow, **close)
        torch.testing.assert_close(values[row][real], value[0, first:-1], **close)
        torch.testing.assert_close(logits[row][real], plain[0, first:-1], **close)
        expected = len(response) - (1 if t5 else 0)
        assert real.sum() == expected
    ids, there = inputs["input_ids"], inputs["attention_mask"].bool()
    flat = [t for q, r in zip(queries, responses, strict=True) for t in (q if t5 else [*q, *r])]
    assert ids[there].tolist() == [int(t) for t in flat]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_equals_its_rows_alone(architecture):
    trainer = quiet_trainer(policy(architecture))
    queries, responses = some_queries(), some_responses()
    together = trainer.batched_forward_pass(
        trainer.model, queries, responses, trainer.prepare_model_inputs(queries, responses)
    )
    for row in range(4):
        one = [queries[row]], [responses[row]]
        alone = trainer.batched_forward_pass(
            trainer.model, *one, trainer.prepare_model_inputs(*one)
        )
        for i in (0, 2):
            torch.testing.assert_close(
                together[i][row][together[3][row].bool()],
                alone[i][0][alone[3][0].bool()],
                rtol=1e-4,
                atol=2e-5,
            )


def test_safety_checker():
    trainer = quiet_trainer(policy())
    queries, responses = some_queries(), some_responses()
    scores = [torch.tensor([1.0]), torch.tensor(2.0), torch.tensor([3]), torch.tensor(4)]
    masks = [torch.ones_like(r) for r in responses]
    checked = trainer._step_safety_checker(4, queries, responses, scores, masks)
    assert len(checked) == 4
    assert [s.dim() for s in checked[2]] == [0] * 4
    assert [float(s) for s in checked[2]] == [1.0, 2.0, 3.0, 4.0]
    assert trainer._step_safety_checker(4, queries, responses, scores)[3] is None
    bad = [
        (4, queries, responses, [torch.ones(1, 1)] * 4, None),
        (4, queries, responses, torch.ones(4), None),
        (4, queries, responses, [1.0] * 4, None),
        (4, queries[:3], responses, scores, None),
        (4, torch.stack([q[:3] for q in queries]), responses, scores, None),
        (4, [q[None] for q in queries], responses, scores, None),
        (4, queries, responses, scores, masks[:2]),
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=r"must be|has \d elements"):
            trainer._step_safety_checker(*arguments)
    with pytest.raises(ValueError, match="one number"):
        trainer.step(queries, responses, [torch.ones(1, 1)] * 4)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_gives_gradients_and_statistics(architecture, lora):
    trainer = quiet_trainer(policy(architecture, lora=lora))
    stats = step(trainer)
    for name in SCALARS:
        assert type(stats[name]) is float, name
        assert np.isfinite(stats[name]), name
    width = 6 if architecture == "t5" else 10
    for name, shape in ARRAYS.items():
        expected = tuple({10: width, 160: 16 * width}.get(n, n) for n in shape)
        assert isinstance(stats[name], np.ndarray)
        assert stats[name].shape == expected, name
    assert set(stats) == {*SCALARS, *ARRAYS}
    assert abs(stats["objective/kl"]) < 1e-4
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not trainer.model.is_peft_model or trainer.ref_model is None


def test_a_custom_optimizer_and_scheduler():
    model = policy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    trainer = quiet_trainer(model, optimizer=optimizer, lr_scheduler=scheduler)
    assert isinstance(trainer.optimizer.optimizer, torch.optim.SGD)
    assert isinstance(trainer.lr_scheduler.scheduler, torch.optim.lr_scheduler.ExponentialLR)
    rates = [step(trainer)["ppo/learning_rate"] for _ in range(3)]
    assert rates == [0.01, 0.005, 0.0025]


def test_a_single_response_gives_finite_numbers():
    trainer = quiet_trainer(policy(), batch_size=1, mini_batch_size=1)
    stats = trainer.step(some_queries()[:1], some_responses()[:1], [torch.tensor([1.0])])
    assert all(np.isfinite(value).all() for value in stats.values())
    assert stats["objective/kl_dist"].shape == (1,)


def test_gradient_accumulation_equals_larger_batches():
    queries, responses = some_queries((3, 3, 3, 3)), some_responses((4, 4, 4, 4))
    changes = []
    for sizes in ((1, 4), (4, 1)):
        model = policy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = quiet_trainer(
            model,
            optimizer=optimizer,
            mini_batch_size=sizes[0],
            gradient_accumulation_steps=sizes[1],
            ppo_epochs=2,
        )
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        trainer.step(queries, responses, some_scores())
        changes.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - before)
    torch.testing.assert_close(*changes, rtol=1e-3, atol=1e-6)


def test_whole_logits_reach_a_program_that_replaced_the_loss():
    class Own(PPOTrainer):
        def loss(self, old_logprobs, values, logits, *rest):
            self.seen = logits.shape
            return super().loss(old_logprobs, values, logits, *rest)

    torch.manual_seed(0)
    config = PPOConfig(batch_size=4, mini_batch_size=2, ppo_epochs=1)
    with pytest.warns(UserWarning, match="No dataset"):
        own = Own(config, policy(), tokenizer=tiny_tokenizer())
    ours = step(own)
    assert own.seen == (2, 10, 40)
    plain = step(quiet_trainer(policy(), ppo_epochs=1))
    for name in SCALARS:
        if not name.startswith("time/"):
            np.testing.assert_allclose(ours[name], plain[name], rtol=1e-4, atol=1e-5)


def test_kl_penalties():
    trainer = quiet_trainer(policy())
    one, two = torch.tensor([[0.5, 0.2, 0.1]]), torch.tensor([[0.4, 0.3, 0.3]])
    expected = {"kl": [0.1, -0.1, -0.2], "abs": [0.1, 0.1, 0.2], "mse": [0.005, 0.005, 0.02]}
    for name, numbers in expected.items():
        trainer.config.kl_penalty = name
        torch.testing.assert_close(trainer._kl_penalty(one, two), torch.tensor([numbers]))
        torch.testing.assert_close(trainer._kl_penalty(one[0], two[0]), torch.tensor(numbers))
    trainer.config.kl_penalty = "full"
    p, q = torch.tensor([0.98, 0.01, 0.01]), torch.tensor([0.01, 0.01, 0.98])
    exact = trainer._kl_penalty(p.log().expand(1, 2, 3), q.log().expand(1, 2, 3))
    assert exact.shape == (1, 2)
    torch.testing.assert_close(exact, (p * (p / q).log()).sum().expand(1, 2))


def test_compute_rewards_and_advantages_by_hand():
    trainer = quiet_trainer(policy(), init_kl_coef=0.5, gamma=0.5, lam=1.0)
    logprobs = torch.tensor([[9.0, 0.2, 0.4, 9.0]])
    ref = torch.tensor([[9.0, 0.0, 0.1, 9.0]])
    mask = torch.tensor([[0, 1, 1, 0]])
    rewards, non_score, kls = trainer.compute_rewards(torch.tensor([2.0]), logprobs, ref, mask)
    torch.testing.assert_close(kls, torch.tensor([[0.0, 0.2, 0.3, 0.0]]))
    torch.testing.assert_close(non_score, torch.tensor([[0.0, -0.1, -0.15, 0.0]]))
    torch.testing.assert_close(rewards, torch.tensor([[0.0, -0.1, 1.85, 0.0]]))
    values = torch.tensor([[5.0, 1.0, 0.5, 5.0]])
    masked, advantages, returns = trainer.compute_advantages(values, rewards, mask)
    assert masked.tolist() == [[0.0, 1.0, 0.5, 0.0]]
    torch.testing.assert_close(returns[:, 1:3], torch.tensor([[-0.1 + 0.5 * 1.85, 1.85]]))
    raw = returns[:, 1:3] - masked[:, 1:3]
    torch.testing.assert_close(advantages[:, 1:3], (raw - raw.mean()) / raw.std())


def test_loss_accepts_two_dimensional_logits_and_float_masks():
    trainer = quiet_trainer(policy())
    old, new = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.1, -1.9]])
    policy_loss, value_loss, stats = trainer.loss(
        old, old, torch.rand(1, 2), old + 0.1, new, torch.ones(1, 2), old, old
    )
    assert policy_loss.dim() == value_loss.dim() == 0
    assert stats["policy/ratio"].shape == (1, 2)
    halved = trainer.loss(
        old, old, torch.rand(1, 2), old + 0.1, new, torch.tensor([[1.0, 0.0]]), old, old
    )
    torch.testing.assert_close(float(halved[1]), 0.1 * 0.5 * 0.01, rtol=1e-3, atol=1e-6)


def test_train_minibatch_by_itself():
    trainer = quiet_trainer(policy(), learning_rate=1e-2)
    queries, responses = some_queries(), some_responses()
    inputs = trainer.prepare_model_inputs(queries, responses)
    logprobs, logits, values, mask = trainer.batched_forward_pass(
        trainer.model, queries, responses, inputs, return_logits=True
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    ones = torch.ones_like(values)
    stats = trainer.train_minibatch(
        logprobs.detach(), values.detach(), logprobs, logits, values, mask, ones, ones
    )
    assert float(stats["policy/approxkl"]) == 0.0
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_bf16_backbones_learn(architecture, lora):
    backbone = tiny_backbone(architecture).bfloat16()
    if lora:
        backbone = get_peft_model(backbone, lora_config(architecture))
    model = wrapper_of(architecture).from_pretrained(backbone, torch_dtype=torch.bfloat16)
    assert model.v_head.summary.weight.dtype == torch.float32
    trainer = quiet_trainer(model, learning_rate=1e-2)
    queries = some_queries()
    responses = trainer.generate(queries, return_prompt=False, **GREEDY)
    stats = trainer.step(queries, responses, some_scores())
    assert abs(stats["objective/kl"]) < 0.05
    assert stats["ppo/policy/approxkl"] > 0
    assert all(np.isfinite(stats[name]) for name in SCALARS)


def test_early_stopping_ends_the_epochs():
    trainer = quiet_trainer(policy(), early_stopping=True, target_kl=1e-9, learning_rate=1e-2)
    stats = step(trainer)
    assert stats["ppo/policy/ratio"].size < 160


def test_score_clip_and_record_step_stats():
    trainer = quiet_trainer(policy(), score_clip=0.5)
    assert step(trainer)["ppo/mean_scores"] == pytest.approx((0 + 0.5 + 0.5 + 0) / 4)
    gathered = trainer.gather_stats({"a": torch.tensor(2.0), "b": torch.ones(3), "c": 1.0})
    assert float(gathered["a"]) == 2.0
    assert gathered["c"] == 1.0


def test_a_wide_lora_policy_is_lowered_by_itself_unless_the_program_chose(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setattr(machine, "BF16_WIDTH", 8)
    monkeypatch.setattr(machine, "has_fast_bf16", lambda: True)
    AcceleratorState._reset_state(reset_partial_state=True)

    def frozen_dtypes(lora=True, **options):
        model = policy("gpt2", lora=lora)
        config = PPOConfig(batch_size=4, mini_batch_size=2, **options)
        trainer = PPOTrainer(config, model, tokenizer=tiny_tokenizer())
        queries = some_queries()
        responses = trainer.generate(queries, batch_size=4, return_prompt=False, **SAMPLE)
        assert trainer.step(queries, responses, some_scores())["objective/kl"] == 0.0
        return {p.dtype for p in model.backbone.parameters() if not p.requires_grad or not lora}

    with pytest.warns(UserWarning, match="kept in bfloat16"):
        assert frozen_dtypes() == {torch.bfloat16}
    keep = {"accelerator_kwargs": {"mixed_precision": "no"}}
    assert frozen_dtypes(**keep) == {torch.float32}
    assert frozen_dtypes(lora=False) == {torch.float32}
    monkeypatch.setattr(machine, "BF16_WIDTH", 512)
    assert frozen_dtypes() == {torch.float32}


@pytest.mark.parametrize("architecture", ["t5", "gpt2", "gptj"])
def test_mixed_precision_keeps_frozen_weights_in_bf16_and_what_learns_in_fp32(
    architecture, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        model = policy(architecture, lora=True)
        trainer = quiet_trainer(model)
        learned = [p for p in model.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in learned]
        assert {p.dtype for p in learned} == {torch.float32}
        frozen = {p.dtype for p in model.backbone.parameters() if not p.requires_grad}
        assert frozen == {torch.bfloat16}
        whole = []  # a bf16 product of states with gaps copies the weights for each row
        head = model.backbone.get_output_embeddings()
        head.register_forward_pre_hook(lambda _, args: whole.append(args[0].is_contiguous()))
        queries = some_queries()
        responses = trainer.generate(queries, batch_size=4, return_prompt=False, **SAMPLE)
        assert whole
        assert all(whole)
        stats = trainer.step(queries, responses, some_scores())
        assert stats["objective/kl"] == 0.0  # the adapter starts at zero
        assert np.isfinite(stats["ppo/loss/total"])
        assert any(not torch.equal(p, q) for p, q in zip(learned, before, strict=True))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
