"""Files that are no weights, under the name of weights; numbers that are none."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_detox.classic import AutoModelForCausalLMWithValueHead
from lora_detox.errors import DetoxError
from lora_detox.model_files import not_finite, weight_fault, weight_files
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.scores.encoder import Encoder, check_encoder
from lora_detox.scores.loading import load_classifier
from tests.runs import write_adapter
from tests.traps import write_model

CPU = torch.device("cpu")


class Trap:
    """A pickle of it makes a file when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def broken(file, how):
    """Make a safetensors file into something else; what the message says of it."""
    whole, mark = file.read_bytes(), file.parent / "ran"
    said = {
        "pickle": (pickle.dumps({"weight": Trap(mark)}), "pickle"),
        "cut": (whole[: len(whole) // 2], "cut"),
        "longer": (whole + b"more", "speaks of"),
        "empty": (b"", "it is empty"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        "garbage": (b"\x20\0\0\0\0\0\0\0" + b"?" * 64, "garbage"),
        "page": (b"<html>" + b" " * 90, "web site"),
    }
    if how == "archive":
        torch.save({"weight": Trap(mark)}, file)
        return "zip archive"
    if how == "not a table":
        file.write_bytes(b"\x02\0\0\0\0\0\0\0[]")
        return "garbage"
    content, message = said[how]
    file.write_bytes(content)
    return message


KINDS = (
    "pickle",
    "archive",
    "cut",
    "longer",
    "empty",
    "pointer",
    "garbage",
    "page",
    "not a table",
)


@pytest.mark.parametrize("how", KINDS)
def test_what_is_no_safetensors_file(tmp_path, how):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.arange(100.0)}, file, metadata={"format": "pt"})
    assert weight_fault([file]) is None
    said = broken(file, how)
    fault = weight_fault(weight_files(str(tmp_path)))
    assert str(file) in fault
    assert said in fault


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind in ("policy", "classifier"):
        write_model(folder / kind, kind)
    write_adapter("gptj", folder / "adapter", folder / "policy")
    return folder


def load(models, what):
    if what == "classifier":
        folder = str(models / "classifier")
        return load_classifier(folder, device=CPU, dtype=torch.float32, revision=None, key="judge")
    if what == "encoder":
        return Encoder(check_encoder(str(models / "classifier")), CPU)
    if what.startswith("classic"):
        part = "adapter" if what.endswith("adapter") else "policy"
        return AutoModelForCausalLMWithValueHead.from_pretrained(str(models / part))
    adapter = str(models / "adapter") if what == "adapter" else None
    plan = BackbonePlan(path=str(models / "policy"), adapter=adapter, device="cpu")
    return load_policy(plan, AdapterPlan(rank=2, alpha=4.0))


FILES = {
    "policy": "policy/model.safetensors",
    "adapter": "adapter/adapter_model.safetensors",
    "classifier": "classifier/model.safetensors",
    "encoder": "classifier/model.safetensors",
    "classic": "policy/model.safetensors",
    "classic adapter": "adapter/adapter_model.safetensors",
}


@pytest.mark.parametrize("how", ["pickle", "cut"])
@pytest.mark.parametrize("what", FILES)
def test_every_loader_names_the_file(models, tmp_path, what, how):
    for part in ("policy", "adapter", "classifier"):
        shutil.copytree(models / part, tmp_path / part)
    if what == "classic adapter":
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(models / "policy")
    file = tmp_path / FILES[what]
    broken(file, how)
    with pytest.raises(DetoxError, match=f"{file} is no whole safetensors file"):
        load(tmp_path, what)
    assert not (file.parent / "ran").exists()


def test_a_missing_part_of_sharded_weights_is_named(models, tmp_path):
    folder = shutil.copytree(models / "policy", tmp_path / "policy")
    whole = folder / "model.safetensors"
    names = sorted(load_file(whole))
    places = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for part in sorted(set(places.values())):
        save_file({n: t for n, t in load_file(whole).items() if places[n] == part}, folder / part)
    whole.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    load(tmp_path, "policy")
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(DetoxError, match=r"part-1\.safetensors .* cannot be read"):
        load(tmp_path, "policy")
    index.write_text(json.dumps({"weight_map": {names[0]: "weights.bin"}}))
    with pytest.raises(DetoxError, match=r"weights\.bin .*index of \.safetensors files"):
        load(tmp_path, "policy")
    index.write_text("[]")
    with pytest.raises(DetoxError, match=r"index\.json"):
        load(tmp_path, "policy")


def test_a_pickle_with_code_never_runs_in_the_classic_interface(models, tmp_path):
    folder = shutil.copytree(models / "policy", tmp_path / "policy")
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap(folder / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(DetoxError, match="pickle"):
        load(tmp_path, "classic")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_tensor_that_is_not_finite_is_named(dtype, value):
    if dtype == torch.float8_e4m3fn:
        value = float("nan")  # it has no infinity
    good, bad = torch.ones(3).to(dtype), torch.tensor([1.0, value, value]).to(dtype)
    assert not_finite([("a", good), ("i", torch.ones(2, dtype=torch.int8))]) is None
    assert not_finite([("a", good), ("b", bad)]) == "b has 2 numbers that are NaN or infinite"


@pytest.mark.parametrize("what", ["classifier", "encoder"])
def test_scorers_with_weights_that_are_no_numbers(models, tmp_path, what):
    shutil.copytree(models / "classifier", tmp_path / "classifier")
    file = tmp_path / FILES[what]
    tensors = load_file(file)
    name = "bert.encoder.layer.0.output.dense.bias"
    tensors[name][3] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        DetoxError, match=r"layer\.0\.output\.dense\.bias has 1 numbers that are NaN"
    ):
        load(tmp_path, what)
