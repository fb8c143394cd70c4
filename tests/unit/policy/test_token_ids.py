"""Start, end and padding ids: wherever a model's files name them, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import AutoConfig, GenerationConfig

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan, check_backbone, read_config
from lora_detox.policy.token_ids import complete_ids, end_token_ids
from lora_detox.rollout import generate_responses
from lora_detox.types import Sampling
from tests.tiny import VOCABULARY, tiny_backbone, tiny_prompts, tiny_tokenizer

ADAPTER = AdapterPlan(rank=2, alpha=4.0)


def write(folder, architecture, tokenizer=None, config=None, generation=None):
    """A saved model, with entries of its two configuration files set; None removes one."""
    tiny_backbone(architecture).save_pretrained(folder)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    for name, changes in (("config.json", config), ("generation_config.json", generation)):
        file = Path(folder) / name
        entries = json.loads(file.read_text()) | (changes or {})
        kept = {key: value for key, value in entries.items() if value is not None}
        file.write_text(json.dumps(kept))
    return BackbonePlan(path=str(folder), device="cpu")


def test_all_ends_of_tokenizer_configuration_and_generation_settings(tmp_path):
    plan = write(
        tmp_path, "llama", config={"eos_token_id": [5, 6]}, generation={"eos_token_id": [6, 7, 99]}
    )
    policy = load_policy(plan, ADAPTER)
    assert policy.eos_token_ids == (1, 5, 6, 7)  # 99 has no row: it can never be drawn
    assert policy.backbone.generation_config.eos_token_id == [1, 5, 6, 7]


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_every_end_ends_a_response_and_none_comes_early(tmp_path, architecture):
    plan = write(tmp_path, architecture, generation={"eos_token_id": [1, 7, 8]})
    policy = load_policy(plan, ADAPTER)
    prompts = tiny_prompts(policy, [4] * 64)

    def sampled(least):
        sampling = Sampling(min_new_tokens=least, temperature=2.0)
        return generate_responses(
            policy, prompts, sampling, response_tokens=(20, 20), batch_size=32, seed=0
        )

    responses = sampled(least=0)
    ends = torch.isin(responses.ids, torch.tensor([1, 7, 8])) & responses.mask
    lengths = responses.mask.sum(dim=1)
    last = torch.arange(responses.ids.shape[1]) == (lengths - 1)[:, None]
    assert not (ends & ~last).any()
    assert set(responses.ids[ends].tolist()) == {1, 7, 8}
    assert (ends.any(dim=1) | (lengths == 20)).all()
    shown = [text.split() for text in responses.texts]
    assert not any("w7" in words or "w8" in words for words in shown)  # no special tokens there
    responses = sampled(least=6)
    assert (responses.mask.sum(dim=1) >= 6).all()
    scored = policy.respond(
        prompts.query_ids,
        prompts.query_mask,
        responses.ids,
        responses.mask,
        Sampling(min_new_tokens=6, temperature=2.0),
    )
    torch.testing.assert_close(scored.logprobs, responses.logprobs, rtol=1e-4, atol=1e-4)


def test_generation_stops_where_transformers_would(tmp_path):
    """The first end, greedily, is that of generate() with the same list."""
    plan = write(tmp_path, "llama", generation={"eos_token_id": list(range(3, 20))})
    policy = load_policy(plan, ADAPTER)
    prompts = tiny_prompts(policy, [5] * 6)
    ours = generate_responses(
        policy, prompts, Sampling(greedy=True), response_tokens=(12, 12), batch_size=6, seed=0
    )
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=[1, *range(3, 20)]
    )
    for row in range(6):
        ids = prompts.query_ids[row : row + 1]
        theirs = policy.backbone.generate(ids, generation_config=settings)[0, ids.shape[1] :]
        assert ours.ids[row][ours.mask[row]].tolist() == theirs.tolist()


def test_nested_ends():
    config = AutoConfig.for_model("gemma3", text_config={"vocab_size": 40, "eos_token_id": [4, 5]})
    config.eos_token_id = 6
    assert end_token_ids(tiny_tokenizer(), config, {"eos_token_id": 5}) == (1, 6, 4, 5)


@pytest.mark.parametrize("architecture", ["gptj", "t5", "bart"])
def test_a_padding_id_outside_is_harmless(tmp_path, architecture):
    plain = load_policy(write(tmp_path / "plain", architecture), ADAPTER)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == VOCABULARY
    # An encoder-decoder needs a padding id of its own in training: labels are shifted behind it.
    config = {"pad_token_id": VOCABULARY} if architecture != "t5" else {}
    plan = write(tmp_path / "outside", architecture, tokenizer, config)
    policy = load_policy(plan, ADAPTER)
    assert 0 <= policy.pad_token_id < VOCABULARY
    assert (policy.backbone.config.pad_token_id or 0) < VOCABULARY
    texts = []
    for one in (plain, policy):
        prompts = tiny_prompts(one, [6, 3, 4])
        ids = prompts.query_ids.masked_fill(~prompts.query_mask, one.pad_token_id)
        prompts = type(prompts)(**{**vars(prompts), "query_ids": ids})
        texts.append(
            generate_responses(
                one, prompts, Sampling(), response_tokens=(8, 8), batch_size=3, seed=1
            ).texts
        )
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("architecture", "single"), [("gptj", None), ("gptj", "[END] $A"), ("t5", "$A [END]")]
)
def test_other_ids_outside_are_refused_before_weights_load(
    tmp_path, monkeypatch, architecture, single
):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token" if single else "eos_token": "[END]"})
    if single:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("[END]", VOCABULARY)]
        )
    plan = write(tmp_path, architecture, tokenizer)
    monkeypatch.setattr("safetensors.safe_open", lambda *_, **__: pytest.fail("weights read"))
    message = rf"policy.path: .*\[END\].* id {VOCABULARY}, .* has {VOCABULARY} rows .*resize"
    with pytest.raises(SettingsError, match=message):
        load_policy(plan, ADAPTER)


@pytest.mark.parametrize(
    ("config", "generation", "start"),
    [
        ({}, {}, 0),  # T5: the padding id
        ({}, {"decoder_start_token_id": 4}, 4),
        ({"decoder_start_token_id": 5}, {"decoder_start_token_id": 4}, 5),
        ({"pad_token_id": 3}, {}, 3),
    ],
)
def test_the_start_of_a_t5_without_one(tmp_path, config, generation, start):
    nothing = {"decoder_start_token_id": None}
    plan = write(tmp_path, "t5", config=nothing | config, generation=nothing | generation)
    assert check_backbone(plan, ADAPTER).decoder_start_token_id == start
    policy = load_policy(plan, ADAPTER)
    prompts = tiny_prompts(policy, [4, 3])
    responses = generate_responses(
        policy, prompts, Sampling(greedy=True), response_tokens=(6, 6), batch_size=2, seed=0
    )
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=6, decoder_start_token_id=start, eos_token_id=1
    )
    theirs = policy.backbone.generate(
        prompts.query_ids, attention_mask=prompts.query_mask, generation_config=settings
    )[0, 1:]
    ours = responses.ids[0][responses.mask[0]].tolist()
    assert ours == theirs.tolist()[: len(ours)]


def start_of(kind, generation=None, **entries):
    config = AutoConfig.for_model(kind, vocab_size=40, **entries)
    complete_ids(config, generation or {}, "policy.path")
    return config.decoder_start_token_id


def test_the_start_of_other_families():
    assert start_of("mt5", decoder_start_token_id=None, pad_token_id=3) == 3
    assert start_of("bart", decoder_start_token_id=6) == 6
    assert start_of("bart", decoder_start_token_id=None, bos_token_id=7) == 7
    assert start_of("pegasus", decoder_start_token_id=None, pad_token_id=8) == 8
    assert start_of("mbart", bos_token_id=9) == 9
    parts = {"encoder": {"model_type": "bert"}, "decoder": {"model_type": "bert"}}
    config = AutoConfig.for_model("encoder-decoder", **parts)
    config.decoder.decoder_start_token_id = 11
    complete_ids(config, {}, "policy.path")
    assert config.decoder_start_token_id == 11


def test_no_start_and_a_start_outside_are_refused():
    with pytest.raises(SettingsError, match=r"policy.path: .*no decoder_start_token_id"):
        start_of("bart", decoder_start_token_id=None, bos_token_id=None)
    with pytest.raises(SettingsError, match=r"decoder_start_token_id is 40, .* 40 rows"):
        start_of("bart", decoder_start_token_id=40)


def test_a_value_of_the_wrong_type_is_refused(tmp_path):
    plan = write(tmp_path, "bart", config={"model_type": "marian", "decoder_start_token_id": "0"})
    with pytest.raises(SettingsError, match=r"policy.path: .*config.json.*decoder_start_token_id"):
        check_backbone(plan, ADAPTER)


def test_an_encoder_decoder_without_padding_id_takes_the_tokenizers(tmp_path):
    plan = write(tmp_path, "t5")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": None}))
    assert read_config(plan).pad_token_id is None
    policy = load_policy(plan, ADAPTER)
    assert policy.backbone.config.pad_token_id == policy.tokenizer.pad_token_id == 0
    shifted = policy.backbone.prepare_decoder_input_ids_from_labels(torch.tensor([[5, -100]]))
    assert shifted.tolist() == [[0, 5]]


def test_a_tokenizer_without_end_takes_that_of_the_model(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    assert load_policy(write(tmp_path, "gptj", tokenizer), ADAPTER).tokenizer.eos_token_id == 1


def test_a_broken_generation_config_is_named(tmp_path):
    plan = write(tmp_path, "gptj")
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(SettingsError, match=r"generation_config.json that is no JSON"):
        check_backbone(plan, ADAPTER)
