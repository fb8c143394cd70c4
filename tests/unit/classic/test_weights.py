"""Files of models: which are found, how they are read, with which keywords they load."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig

from lora_detox.classic.heads import read_value_head
from lora_detox.classic.weights import find_file, translate
from tests.unit.classic.programs import policy


def test_old_bin_files_are_read_as_tensors_or_refused(tmp_path):
    head = policy().v_head.summary
    state = {"v_head.summary.weight": head.weight.data, "v_head.summary.bias": head.bias.data}
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert torch.equal(read_value_head(str(tmp_path))["summary.weight"], head.weight)
    torch.save({"v_head.summary.weight": print}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickle can run code"):
        read_value_head(str(tmp_path))


def test_eight_bit_keywords_become_a_quantization_config():
    new = translate({"load_in_8bit": True, "torch_dtype": torch.float16, "use_auth_token": "t"})
    assert isinstance(new["quantization_config"], BitsAndBytesConfig)
    assert new["quantization_config"].load_in_8bit
    assert new["dtype"] == torch.float16
    assert new["token"] == "t"
    assert "" in new["device_map"]
    assert translate({"load_in_4bit": True})["quantization_config"].load_in_4bit
    assert translate({})["dtype"] == torch.float32


def test_index_names_the_files_of_the_head(tmp_path):
    policy("gptj").save_pretrained(tmp_path, max_shard_size="10KB")
    places = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    file = places["v_head.summary.weight"]
    assert "v_head.summary.weight" in load_file(tmp_path / file)


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert find_file(str(tmp_path), "adapter_config.json") is None
    assert find_file("someone/something", "adapter_config.json") is None  # offline, not cached
