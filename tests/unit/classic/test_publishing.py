"""Logging, saving, uploading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from peft import PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_detox.classic import AutoModelForCausalLMWithValueHead
from tests.tiny import tiny_backbone
from tests.unit.classic.programs import (
    policy,
    quiet_trainer,
    some_queries,
    some_responses,
    some_scores,
)

BATCH = {"query": ["a"] * 4, "response": ["b"] * 4}


def learned(trainer, steps=1):
    for _ in range(steps):
        stats = trainer.step(some_queries(), some_responses(), some_scores())
    return stats


def test_log_stats_writes_tensorboard(tmp_path):
    trainer = quiet_trainer(
        policy(), log_with="tensorboard", project_kwargs={"logging_dir": str(tmp_path)}
    )
    for _ in range(2):
        trainer.log_stats(learned(trainer), BATCH, some_scores())
    trainer.accelerator.end_training()
    file = next(tmp_path.rglob("events*"))
    events = EventAccumulator(str(file.parent)).Reload()
    points = events.Scalars("objective/kl")
    assert [p.step for p in points] == [1, 2]
    assert [p.value for p in events.Scalars("env/reward_mean")] == [0.75, 0.75]


def test_log_stats_without_tracker_and_without_texts():
    trainer = quiet_trainer(policy())
    stats = learned(trainer)
    trainer.log_stats(stats, BATCH, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    trainer.log_stats(stats, BATCH, [torch.tensor([1.0])] * 4)
    with pytest.warns(UserWarning, match="no text is logged"):
        trainer.log_stats(stats, {}, some_scores())


def test_save_pretrained_of_a_full_model(tmp_path):
    trainer = quiet_trainer(policy(), learning_rate=1e-2)
    learned(trainer)
    trainer.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[name])
    again = AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path))
    assert torch.equal(again.v_head.summary.weight, trainer.model.v_head.summary.weight)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "</s>"
    assert "lora_detox.classic" in (tmp_path / "README.md").read_text()
    assert not list(tmp_path.glob("*.bin"))


def test_save_pretrained_of_an_adapter(tmp_path):
    tiny_backbone("gpt2").save_pretrained(tmp_path / "base")
    trainer = quiet_trainer(policy(lora=True), learning_rate=1e-2)
    learned(trainer)
    trainer.save_pretrained(str(tmp_path / "adapter"))
    names = {file.name for file in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "value_head.safetensors"} <= names
    assert "model.safetensors" not in names
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(plain(ids).logits, trainer.model.eval()(ids)[0])


def test_create_model_card(tmp_path):
    trainer = quiet_trainer(policy())
    trainer.create_model_card(tmp_path / "card", "A model")
    text = (tmp_path / "card" / "README.md").read_text()
    assert "# A model" in text
    assert str(tmp_path) not in text


class Hub:
    """Stands in for the hub: what was created and uploaded."""

    def __init__(self, monkeypatch):
        self.uploads = []
        monkeypatch.setattr(HfApi, "create_repo", lambda _, repo_id, **__: None)
        monkeypatch.setattr(HfApi, "upload_folder", self.upload)

    def upload(self, repo_id, folder_path, **options):
        self.uploads.append((repo_id, {f.name for f in Path(folder_path).iterdir()}))
        return type("Commit", (), {"commit_url": f"hub/{repo_id}"})


def test_push_to_hub(monkeypatch):
    hub = Hub(monkeypatch)
    trainer = quiet_trainer(policy(lora=True))
    assert trainer.push_to_hub("me/adapter", private=True, token="t") == "hub/me/adapter"
    assert trainer.model.push_to_hub("me/model") == "hub/me/model"
    (_, whole), (_, model) = hub.uploads
    assert {"README.md", "tokenizer.json", "adapter_model.safetensors"} <= whole
    assert "adapter_model.safetensors" in model


def test_the_best_policy_is_pushed(monkeypatch):
    hub = Hub(monkeypatch)
    trainer = quiet_trainer(
        policy(), push_to_hub_if_best_kwargs={"repo_id": "me/best"}, ppo_epochs=1
    )
    for scale in (1.0, 0.5, 2.0):
        trainer.step(some_queries(), some_responses(), [scale * s for s in some_scores()])
    assert [repo for repo, _ in hub.uploads] == ["me/best"] * 2
    with pytest.raises(ValueError, match="repo_id"):
        quiet_trainer(policy(), push_to_hub_if_best_kwargs={"token": "t"})


def test_wandb_tables(monkeypatch):
    tables = []
    fake = type(
        "wandb", (), {"Table": staticmethod(lambda columns, rows: tables.append((columns, rows)))}
    )
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    trainer = quiet_trainer(policy())
    trainer.config.log_with = "wandb"
    trainer.log_stats(learned(trainer), BATCH, some_scores())
    assert tables[0][0] == ["query", "response", "reward"]
    assert tables[0][1][2] == ["a", "b", 2.0]
    with pytest.raises(ValueError, match="no answer"):
        trainer.log_stats({}, BATCH, some_scores(), columns_to_log=["answer"])
    assert np.isfinite(learned(trainer)["objective/kl"])
