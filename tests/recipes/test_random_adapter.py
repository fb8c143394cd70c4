"""The random adapter of a trained one's size."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lora_detox.embedded import embedded_path
from recipes.lab.random_adapter import WEIGHTS, factor_names, update_norm, write_random

BASE = str(embedded_path("gptj"))


def trained(folder, **options):
    """Folder of an adapter on the miniature whose update is not 0, and its model."""
    torch.manual_seed(3)
    options = {"target_modules": ["q_proj", "fc_in"], "r": 4, "lora_alpha": 32} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * (0.01 if "h.0" in name else 0.1))
    model.save_pretrained(folder / "adapter")
    return folder


def updates(folder):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), str(folder))
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    base = {n: p.clone() for n, p in model.named_parameters() if "lora_" not in n}
    with torch.no_grad():
        return {name: one.get_delta_weight("default") for name, one in layers.items()}, base


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"fc_in": 2}, "alpha_pattern": {"fc_in": 3}},
        {"target_modules": ["q_proj", "wte"]},
    ],
    ids=["lora", "rslora", "patterns", "embedding"],
)
def test_each_layer_has_the_norm_and_rank_of_the_trained_one(options, tmp_path):
    run = trained(tmp_path / "run", **options)
    write_random(run, tmp_path / "random", seed=5)
    (old, base), (new, base_after) = updates(run / "adapter"), updates(tmp_path / "random")
    assert old.keys() == new.keys()
    for name, update in new.items():
        assert float(update.norm()) == pytest.approx(float(old[name].norm()), rel=1e-5)
        assert torch.linalg.matrix_rank(update) == torch.linalg.matrix_rank(old[name])
        cosine = float((update * old[name]).sum() / update.norm() / old[name].norm())
        assert abs(cosine) < 0.1
    assert all(torch.equal(base[name], one) for name, one in base_after.items())


def test_the_seed_decides_and_an_update_of_0_stays_0(tmp_path):
    run = trained(tmp_path)
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(target_modules=["q_proj"])
    )
    model.save_pretrained(tmp_path / "untrained")
    for name, source, seed in (
        ("one", run, 1),
        ("again", run, 1),
        ("other", run, 2),
        ("zero", tmp_path / "untrained", 1),
    ):
        write_random(source, tmp_path / name, seed)
    files = {n: load_file(tmp_path / n / WEIGHTS) for n in ("one", "again", "other", "zero")}
    for name, tensor in files["one"].items():
        assert torch.equal(tensor, files["again"][name])
        assert not torch.equal(tensor, files["other"][name])
    zero = files["zero"]
    assert all(update_norm(zero[a], zero[b]) == 0 for a, b in factor_names(zero))


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "olora"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_more_than_two_factors_is_refused(options, tmp_path):
    run = trained(tmp_path / "run", **options)
    with pytest.raises(SystemExit, match=r"want one whose update is the product"):
        write_random(run, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_read_or_written_are_refused(tmp_path):
    run = trained(tmp_path)
    with pytest.raises(SystemExit, match=r"got no adapter_model.safetensors"):
        write_random(tmp_path / "nothing", tmp_path / "out", seed=0)
    with pytest.raises(SystemExit, match=r"not empty"):
        write_random(run, run / "adapter", seed=0)
