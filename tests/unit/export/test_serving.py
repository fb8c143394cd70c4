"""Where an adapter can be served, from its files."""

import pytest

from lora_detox.export.serving import serving_places
from lora_detox.policy.plain_lora import stored_adapter
from tests.unit.export.test_gguf_adapter import write_adapter


def places_of(folder, config, *, merged=False, gguf=False):
    places = serving_places(stored_adapter(folder), config, merged=merged, gguf=gguf)
    return {place.where: (place.works, place.how) for place in places}


@pytest.mark.parametrize(("rank", "flag"), [(4, 8), (16, 16), (17, 32), (257, 320)])
def test_plain_lora_on_llama_is_served_everywhere(tmp_path, rank, flag):
    config, _ = write_adapter(tmp_path, "llama", ["q_proj"], r=rank)
    places = places_of(tmp_path, config)
    assert {works for works, _ in places.values()} == {"yes"}
    assert places["vLLM"][1].endswith(f"--max-lora-rank {flag}")
    assert places["llama.cpp"][1].startswith("export.gguf=true, then")


@pytest.mark.parametrize(
    ("model_type", "options", "reason"),
    [
        ("llama", {"r": 513}, "rank 513, want at most 512"),
        ("llama", {"use_dora": True}, "DoRA"),
        ("llama", {"bias": "lora_only"}, "bias=lora_only"),
        ("llama", {"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ("llama", {"targets": ["embed_tokens"]}, "factors of model.embed_tokens"),
        ("llama", {"targets": ["lm_head"]}, "factors of lm_head"),
        ("llama", {"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ("llama", {"rank_pattern": {"q_proj": 2}}, "one rank and one alpha"),
        ("gptj", {}, "runs gptj without adapters"),
        ("t5", {"targets": ["q"]}, "no encoder-decoders such as t5"),
        ("bart", {}, "no encoder-decoders such as bart"),
    ],
)
def test_what_vllm_cannot_serve(tmp_path, model_type, options, reason):
    config, _ = write_adapter(tmp_path, model_type, **{"targets": ["q_proj"], **options})
    works, how = places_of(tmp_path, config)["vLLM"]
    assert works == "no"
    assert reason in how


def test_a_model_type_that_is_not_listed_is_left_to_the_program(tmp_path):
    config, _ = write_adapter(tmp_path, "helium", ["q_proj"])
    places = places_of(tmp_path, config, merged=True)
    assert places["vLLM"] == (
        "unknown",
        "if its list of models has LoRA for helium: --enable-lora --lora-modules NAME=DIR "
        "--max-lora-rank 8",
    )
    assert places["llama.cpp"][0] == "no"
    assert places["merged into the base"][1].startswith("the folder merged/")


def test_rslora_is_no_obstacle(tmp_path):
    config, _ = write_adapter(tmp_path, "qwen2", ["q_proj"], use_rslora=True)
    places = places_of(tmp_path, config, gguf=True)
    assert {works for works, _ in places.values()} == {"yes"}
    assert places["llama.cpp"][1] == "-m BASE.gguf --lora adapter.gguf"
