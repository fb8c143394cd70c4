"""Another model than the user meant: tensors that lack, are left over, reshaped, or no numbers."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.policy.soup import average_adapters
from lora_detox.policy.weight_check import check_numbers
from tests.runs import write_adapter
from tests.tiny import tiny_backbone, tiny_tokenizer

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
ONE = {
    "gptj": "transformer.h.1.mlp.fc_in.weight",
    "t5": "decoder.block.1.layer.2.DenseReluDense.wo.weight",
    "llama": "model.layers.1.mlp.down_proj.weight",
}


def write(folder, architecture):
    tiny_backbone(architecture).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def change(folder, how):
    """Rewrite the tensors of a folder by a function on their dict."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    how(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def load(folder, **changes):
    return load_policy(BackbonePlan(path=str(folder), device="cpu", **changes), ADAPTER)


def lacks(tensors, name):
    del tensors[name]


def holds_more(tensors, name):
    tensors[name.replace("weight", "scale")] = torch.ones(3)


def reshaped(tensors, name):
    tensors[name] = tensors[name][:, :-1].contiguous()


def has_a_nan(tensors, name):
    tensors[name][2, 3] = float("nan")


def is_infinite(tensors, name):
    tensors[name][2, 3] = -float("inf")


FAULTS = {
    lacks: r"lack: {name}",
    holds_more: r"hold what a model of its config\.json does not have: {scale}",
    reshaped: r"another shape than its config\.json says: {name} \(\d+, \d+\) instead of",
    has_a_nan: r"{name} has 1 numbers that are NaN or infinite",
    is_infinite: r"{name} has 1 numbers that are NaN or infinite",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("architecture", ONE)
def test_another_model_than_was_meant(tmp_path, architecture, fault):
    name = ONE[architecture]
    folder = write(tmp_path / "model", architecture)
    change(folder, lambda tensors: fault(tensors, name))
    message = FAULTS[fault].format(name=name, scale=name.replace("weight", "scale"))
    with pytest.raises(SettingsError, match=rf"policy\.path: .*{message}"):
        load(folder)


HARMLESS = {
    "gptj": (
        "transformer.h.0.attn.bias",
        "transformer.h.0.attn.masked_bias",
        "v_head.summary.weight",
    ),
    "t5": ("v_head.summary.bias",),
    "llama": ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.position_ids"),
}


@pytest.mark.parametrize("architecture", HARMLESS)
def test_what_older_programs_wrote_besides_changes_nothing(tmp_path, architecture):
    folder = write(tmp_path / "model", architecture)
    weights_of = load(folder).backbone.state_dict()
    expected = {
        name: tensor.clone() for name, tensor in weights_of.items()
    }  # may be the file's own
    for name in HARMLESS[architecture]:
        change(folder, lambda tensors, name=name: tensors.update({name: torch.ones(2, 2)}))
    weights = load(folder).backbone.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[n], t) for n, t in expected.items() if ".lora_" not in n)


def test_embeddings_that_are_in_the_file_once_are_complete(tmp_path):
    model = tiny_backbone("t5")
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert [n for n in load_file(tmp_path / "model.safetensors") if "embed_tokens" in n] == []
    backbone = load(tmp_path).backbone
    assert torch.equal(backbone.get_input_embeddings().weight, model.shared.weight)


def test_a_matrix_of_the_output_beside_a_config_that_ties_it_is_kept(tmp_path):
    """As FLAN-T5's, whose config.json Transformers 5 reads as tied."""
    folder = write(tmp_path / "model", "t5")
    stored = load_file(folder / "model.safetensors")
    assert not torch.equal(stored["lm_head.weight"], stored["shared.weight"])
    assert torch.equal(load(folder).backbone.lm_head.weight, stored["lm_head.weight"])


def test_numbers_are_looked_at_before_they_are_rounded_to_four_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = write(tmp_path / "model", "llama")
    change(folder, lambda tensors: has_a_nan(tensors, ONE["llama"]))
    with pytest.raises(SettingsError, match=rf"model\.safetensors: {ONE['llama']} has 1 numbers"):
        load(folder, quantization="nf4")


def test_weights_other_than_those_of_the_file_are_named(tmp_path):
    folder = write(tmp_path / "model", "gptj")
    backbone = tiny_backbone("gptj")
    plan = BackbonePlan(path=str(folder), device="cpu")
    check_numbers(backbone, plan)
    with torch.no_grad():
        backbone.get_parameter(ONE["gptj"])[0, 0] += 1e-6
    with pytest.raises(SettingsError, match=rf"{ONE['gptj']} was loaded as other numbers than"):
        check_numbers(backbone, plan)


@pytest.mark.parametrize("architecture", ["gptj", "t5"])
def test_numbers_that_overflow_on_the_way_are_named_by_their_module(tmp_path, architecture):
    folder, name = write(tmp_path / "model", architecture), ONE[architecture]
    change(folder, lambda tensors: tensors[name].fill_(3e38))
    module = name.removesuffix(".weight").replace(".", r"\.")
    with pytest.raises(SettingsError, match=rf"NaN or infinite, from {module} on.*overflow"):
        load(folder)


def test_a_mean_of_adapters_is_taken_of_numbers(tmp_path):
    for name in ("first", "second"):
        write_adapter("gptj", tmp_path / name)
    folders = [tmp_path / "first", tmp_path / "second"]
    average_adapters(folders)
    file = tmp_path / "second" / "adapter_model.safetensors"
    tensors = load_file(file)
    first = min(tensors)
    tensors[first][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=rf"soup: {file}: {first} has 1 numbers"):
        average_adapters(folders)
    file.write_bytes(b"")
    with pytest.raises(SettingsError, match=r"soup: .* it is empty"):
        average_adapters(folders)
