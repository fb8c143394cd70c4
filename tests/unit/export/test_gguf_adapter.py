"""The GGUF file of an adapter: llama.cpp's names, order of rows and scaling, read from the file."""

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox.errors import SettingsError
from lora_detox.export.gguf_adapter import ARCHITECTURES, plan_gguf, reordered, write_gguf
from lora_detox.policy.plain_lora import stored_adapter
from tests.tiny_configs import tiny_config

LLAMA = [f"blk.{layer}.attn_{part}.weight" for layer in range(3) for part in "qkv"]
NAMES = {
    "llama": (["q_proj", "k_proj", "v_proj"], LLAMA),
    "t5": (
        ["q", "wi"],
        [f"{side}.blk.{i}.attn_q.weight" for side in ("enc", "dec") for i in range(3)]
        + [f"{side}.blk.{i}.ffn_up.weight" for side in ("enc", "dec") for i in range(3)]
        + [f"dec.blk.{i}.cross_attn_q.weight" for i in range(3)],
    ),
    "gpt_neox": (["query_key_value"], [f"blk.{i}.attn_qkv.weight" for i in range(3)]),
    "gpt2": (
        ["c_attn", "c_fc"],
        [f"blk.{i}.{n}.weight" for i in range(3) for n in ("attn_qkv", "ffn_up")],
    ),
}


def write_adapter(folder, model_type, targets="all-linear", **options):
    """A random adapter on a random tiny model; the model and its changes W - W0 by module."""
    config = tiny_config(model_type)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    kind = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
    options = {"r": 4, "lora_alpha": 6, "task_type": kind, **options}
    model = get_peft_model(auto.from_config(config), LoraConfig(target_modules=targets, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    changes = {}
    for name, layer in layers.items():
        delta = layer.get_delta_weight("default").detach()
        changes[name] = (delta.T if getattr(layer, "fan_in_fan_out", False) else delta).numpy()
    return config, changes


def file_changes(path):
    """What llama.cpp adds to each weight, as its source says: alpha / rank * (B @ A)."""
    reader = gguf.GGUFReader(path)
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    values = {one.name: np.asarray(one.data) for one in reader.tensors}
    names = {name.rpartition(".lora_")[0] for name in values}
    changes = {}
    for name in names:
        a, b = values[f"{name}.lora_a"], values[f"{name}.lora_b"]
        assert a.shape[0] == b.shape[1]
        changes[name] = alpha / a.shape[0] * (b @ a)
    return reader, changes


@pytest.mark.parametrize("model_type", NAMES)
def test_the_names_are_those_of_llama_cpp(tmp_path, model_type):
    targets, names = NAMES[model_type]
    config, _ = write_adapter(tmp_path, model_type, targets)
    plan = plan_gguf(stored_adapter(tmp_path), config)
    write_gguf(tmp_path, plan, "tiny")
    reader, changes = file_changes(tmp_path / "adapter.gguf")
    assert set(changes) == set(names)
    fields = {key: reader.get_field(key).contents() for key in ("general.type", "adapter.type")}
    assert fields == {"general.type": "adapter", "adapter.type": "lora"}
    architecture = reader.get_field("general.architecture").contents()
    assert architecture == {"gpt_neox": "gptneox"}.get(model_type, model_type)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 20}}],
    ids=["plain", "rslora", "patterns"],
)
def test_the_file_changes_each_weight_as_peft_does(tmp_path, model_type, options):
    config, changes = write_adapter(tmp_path, model_type, **options)
    plan = plan_gguf(stored_adapter(tmp_path), config)
    write_gguf(tmp_path, plan, "tiny")
    _, written = file_changes(tmp_path / "adapter.gguf")
    assert len(written) == len(changes) >= 6
    for module, change in changes.items():
        place = plan.modules[module]
        np.testing.assert_allclose(
            written[place.name], reordered(change, place.order, place.heads), rtol=1e-4, atol=1e-6
        )


def test_rotary_rows_are_interleaved_halves_of_a_head():
    rows = np.arange(16.0)[:, None]  # two heads of 8
    one_head = [0, 4, 1, 5, 2, 6, 3, 7]
    wanted = [*one_head, *(8 + row for row in one_head)]
    assert reordered(rows, "rotary", 2)[:, 0].tolist() == wanted


def test_fused_rows_are_all_queries_then_keys_then_values():
    rows = np.arange(12.0)[:, None]  # two heads, each with 2 rows of query, key and value
    assert reordered(rows, "fused", 2)[:, 0].tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


def test_only_llama_query_and_key_rows_are_reordered(tmp_path):
    config, _ = write_adapter(tmp_path, "llama")
    modules = plan_gguf(stored_adapter(tmp_path), config).modules
    orders = {name.rpartition(".")[2]: (one.order, one.heads) for name, one in modules.items()}
    assert orders.pop("q_proj") == ("rotary", 4)
    assert orders.pop("k_proj") == ("rotary", 2)
    assert {order for order, _ in orders.values()} == {"same"}


@pytest.mark.parametrize(
    ("model_type", "options", "match"),
    [
        ("gptj", {}, "model type gptj, want one of .*llama"),
        ("llama", {"use_dora": True}, "DoRA"),
        ("llama", {"modules_to_save": ["lm_head"], "targets": ["q_proj"]}, "modules_to_save"),
        ("llama", {"targets": ["embed_tokens"]}, "embedding"),
        ("llama", {"targets": ["q_proj"], "trainable_token_indices": [3]}, "trainable_token"),
    ],
)
def test_what_llama_cpp_cannot_serve_is_refused(tmp_path, model_type, options, match):
    config, _ = write_adapter(tmp_path, model_type, **options)
    with pytest.raises(SettingsError, match=rf"export\.gguf: .*{match}"):
        plan_gguf(stored_adapter(tmp_path), config)


def test_a_head_that_is_the_embedding_is_refused(tmp_path):
    config, _ = write_adapter(tmp_path, "gemma", ["lm_head", "q_proj"])
    assert config.tie_word_embeddings
    with pytest.raises(SettingsError, match="lm_head shares its weight"):
        plan_gguf(stored_adapter(tmp_path), config)
