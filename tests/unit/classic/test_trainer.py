"""PPOTrainer: construction, whole steps and their statistics, number formats."""

import contextlib

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from peft import get_peft_model

from lora_detox import machine
from lora_detox.classic import PPOConfig, PPOTrainer, create_reference_model
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


def test_another_trainer_of_the_process_changes_no_step():
    changes = []
    for disturbed in (False, True):
        model = policy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = quiet_trainer(
            model, optimizer=optimizer, mini_batch_size=2, gradient_accumulation_steps=2
        )
        if disturbed:  # as one that accumulates over 4 leaves it when it ends halfway
            Accelerator(gradient_accumulation_steps=4)
            GradientState().sync_gradients = False
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        queries, responses = some_queries((3, 3, 3, 3)), some_responses((4, 4, 4, 4))
        trainer.step(queries, responses, some_scores())
        changes.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - before)
    assert changes[0].abs().max() > 0
    torch.testing.assert_close(*changes)


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
