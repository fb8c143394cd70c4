"""PPOConfig: every documented field, lazily read, sizes checked."""

import dataclasses
import warnings

import pytest
from transformers import HfArgumentParser

from lora_detox.classic import PPOConfig
from tests.unit.classic.programs import (
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)

DOCUMENTED = {
    "seed": 0, "log_with": None, "task_name": None, "model_name": "gpt2", "query_dataset": "imdb",
    "reward_model": "sentiment-analysis:lvwerra/distilbert-imdb", "remove_unused_columns": True,
    "tracker_kwargs": {}, "accelerator_kwargs": {}, "project_kwargs": {},
    "tracker_project_name": "trl", "push_to_hub_if_best_kwargs": {}, "steps": 20000,
    "learning_rate": 1.41e-05, "adap_kl_ctrl": True, "init_kl_coef": 0.2, "kl_penalty": "kl",
    "target": 6, "horizon": 10000, "gamma": 1, "lam": 0.95, "cliprange": 0.2,
    "cliprange_value": 0.2, "vf_coef": 0.1, "batch_size": 128, "forward_batch_size": None,
    "mini_batch_size": 128, "gradient_accumulation_steps": 1, "world_size": None, "ppo_epochs": 4,
    "max_grad_norm": None, "optimize_cuda_cache": None, "optimize_device_cache": False,
    "early_stopping": False, "target_kl": 1, "compare_steps": 1, "ratio_threshold": 10.0,
    "use_score_scaling": False, "use_score_norm": False, "score_clip": None,
    "whiten_rewards": False, "gradient_checkpointing": False, "is_encoder_decoder": None,
    "is_peft_model": None, "global_backward_batch_size": None, "global_batch_size": None,
}  # fmt: skip


def test_every_documented_field_has_its_default():
    config = PPOConfig()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    assert {"exp_name", "backward_batch_size", *DOCUMENTED} <= names
    assert config.backward_batch_size == 128
    assert config.total_ppo_epochs == 157


def test_the_documented_defaults_are_those_of_the_page(shared):
    text = (shared / "seeds" / "trl_ppo_trainer_docs.txt").read_text()
    signature = text[text.index("class trl.PPOConfig") :]
    for name, value in DOCUMENTED.items():
        assert f"{name}: " in signature
        if not isinstance(value, dict):
            assert f"= {value!r}" in signature or f"= {float(value)}" in signature


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_size": 4, "mini_batch_size": 3},
        {"batch_size": 4, "mini_batch_size": 2, "gradient_accumulation_steps": 3},
        {"batch_size": 2, "mini_batch_size": 4},
    ],
)
def test_sizes_must_divide(sizes):
    with pytest.raises(ValueError, match="multiple of"):
        PPOConfig(**sizes)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="kl_penalty"):
        PPOConfig(kl_penalty="k3")
    with pytest.raises(ValueError, match="optimize_device_cache"):
        PPOConfig(optimize_cuda_cache=True, optimize_device_cache=True)


def test_old_names_still_work():
    with pytest.warns(UserWarning, match="forward_batch_size"):
        assert PPOConfig(batch_size=8, forward_batch_size=4).mini_batch_size == 4
    assert PPOConfig(optimize_cuda_cache=True).optimize_device_cache


def test_it_is_mutable_and_read_lazily():
    trainer = quiet_trainer(policy(), ppo_epochs=1)
    trainer.config.batch_size, trainer.config.mini_batch_size = 2, 1
    trainer.config.ppo_epochs, trainer.config.gradient_accumulation_steps = 3, 2
    queries, responses = some_queries((3, 4)), some_responses((2, 4))
    counted = []
    trainer.optimizer.optimizer.register_step_post_hook(lambda *_: counted.append(1))
    stats = trainer.step(queries, responses, some_scores(2))
    assert len(counted) == 3
    assert stats["ppo/policy/ratio"].size == 3 * 2 * 7
    trainer.config.mini_batch_size = 4
    with pytest.raises(ValueError, match="multiple of"):
        trainer.step(queries, responses, some_scores(2))


def test_one_config_serves_several_trainers():
    config = PPOConfig(batch_size=4, mini_batch_size=2, ppo_epochs=1)
    trainers = [quiet_trainer(policy(a), config=config) for a in ("gpt2", "t5", "gpt2")]
    for trainer in trainers:
        trainer.step(some_queries(), some_responses(), some_scores())
    assert [t.is_encoder_decoder for t in trainers] == [False, True, False]
    config.init_kl_coef = 0.9
    assert trainers[0].kl_ctl.value != 0.9
    assert config.world_size == 1
    assert config.global_batch_size == 4


def test_it_parses_from_a_command_line():
    parser = HfArgumentParser(PPOConfig)
    arguments = ["--batch_size", "8", "--mini_batch_size", "4", "--learning_rate", "0.1"]
    (config,) = parser.parse_args_into_dataclasses(args=[*arguments, "--log_with", "tensorboard"])
    assert (config.batch_size, config.learning_rate) == (8, 0.1)
    assert config.log_with == "tensorboard"


def test_to_dict_is_flat():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = PPOConfig(tracker_kwargs={"wandb": 1}).to_dict()
    assert flat["tracker_kwargs/wandb"] == 1
    assert flat["batch_size"] == 128
