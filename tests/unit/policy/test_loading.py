"""From a folder to a policy: dtype, defaults, adapters, quantized weights, and what is refused."""

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from lora_detox.errors import SettingsError
from lora_detox.machine import resolve_device
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan, check_backbone, read_config, resolve_dtype
from lora_detox.rollout import Passes, collect_rollout, generate_responses
from lora_detox.types import Sampling
from tests.tiny import move, tiny_backbone, tiny_prompts, tiny_responses, tiny_tokenizer

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
SAMPLING = Sampling()
FAMILIES = pytest.mark.parametrize("architecture", ["t5", "gptj"])


@pytest.fixture
def saved(tmp_path):
    """Write a tiny model, with generation defaults and dropout that would spoil PPO."""

    def save(architecture, dtype=torch.float32):
        folder = tmp_path / architecture
        model = tiny_backbone(architecture).to(dtype)
        model.generation_config = GenerationConfig(
            do_sample=True, top_k=5, min_length=4, repetition_penalty=1.3
        )
        for name in ("dropout_rate", "attn_pdrop", "embd_pdrop", "resid_pdrop"):
            if hasattr(model.config, name):
                setattr(model.config, name, 0.3)
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return str(folder)

    return save


def load(path, fresh=ADAPTER, **changes):
    return load_policy(BackbonePlan(path=path, device="cpu", **changes), fresh)


def batch_for(policy):
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    return prompts.query_ids, prompts.query_mask, ids, mask, SAMPLING


def logprobs(policy):
    with torch.no_grad():
        return policy.respond(*batch_for(policy)).logprobs


def ref_logprobs(policy):
    with policy.reference():
        return policy.respond(*batch_for(policy)).logprobs


@FAMILIES
def test_a_loaded_model_is_the_saved_one_without_what_spoils_ppo(saved, architecture):
    policy = load(saved(architecture))
    assert (policy.tokenizer.padding_side == "right") == (architecture == "t5")
    kept = policy.backbone.generation_config
    assert kept.top_k in (None, 50)
    assert kept.top_k != 5
    assert kept.min_length != 4
    assert kept.repetition_penalty != 1.3
    rates = [m.p for m in policy.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates
    assert not any(rates)
    bare = tiny_backbone(architecture).state_dict()
    loaded = policy.backbone.state_dict()
    for name, tensor in bare.items():
        found = loaded.get(name)
        if found is None:  # under an adapter
            found = loaded[".base_layer.".join(name.rsplit(".", 1))]
        assert torch.equal(found, tensor), name
    with policy.training():
        in_training = policy.respond(*batch_for(policy)).logprobs.detach()
    torch.testing.assert_close(in_training, logprobs(policy), rtol=1e-5, atol=1e-5)


def test_the_dtype_is_the_asked_one_and_never_the_checkpoints(saved):
    path = saved("gptj", dtype=torch.float16)
    assert load(path).backbone.dtype == torch.float32  # auto, on a CPU
    for name in ("float32", "bfloat16", "float16"):
        assert load(path, dtype=name).backbone.dtype == getattr(torch, name)
    assert load(path, dtype="bfloat16").value_head.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize(("units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_beside_quantized_weights_follows_the_bf16_units(
    units, dtype, quantization, monkeypatch
):
    monkeypatch.setattr("lora_detox.policy.preflight.has_fast_bf16", lambda: units)
    plan = BackbonePlan(path="x", quantization=quantization, device="cpu")
    assert resolve_dtype(plan, tiny_backbone("gptj").config) == dtype


def test_t5_in_fp16_is_refused_unless_forced(saved):
    path = saved("t5")
    with pytest.raises(SettingsError, match=r"policy.dtype=float16 with a T5 .*bfloat16"):
        check_backbone(BackbonePlan(path=path, dtype="float16"), ADAPTER)
    check_backbone(BackbonePlan(path=path, dtype="float16", allow_fp16_t5=True), ADAPTER)


def test_what_is_no_model_is_refused_by_its_key(saved, tmp_path):
    cases = {
        str(tmp_path / "nothing"): "policy.path: .*no model folder",
        "nobody/no-such-model": r"policy.path: cannot read .*Without a network .*local folder",
    }
    for missing, pattern in (
        ("model.safetensors", r"policy.path: .*no weights"),
        ("tokenizer", r"policy.path: .*no tokenizer"),
    ):
        folder = tmp_path / f"without-{missing}"
        tmp_path.joinpath("gptj").exists() or saved("gptj")
        folder.mkdir()
        for file in tmp_path.joinpath("gptj").iterdir():
            if not file.name.startswith(missing):
                (folder / file.name).write_bytes(file.read_bytes())
        cases[str(folder)] = pattern
    for path, pattern in cases.items():
        with pytest.raises(SettingsError, match=pattern):
            check_backbone(BackbonePlan(path=path), ADAPTER)


def test_a_device_that_is_not_here_is_refused_by_its_key():
    assert resolve_device("cpu").type == "cpu"
    for device in ("banana", "cuda:99"):
        with pytest.raises(SettingsError, match=f"device={device} cannot be used here"):
            resolve_device(device)


def test_reading_a_configuration_reads_no_weights(saved, monkeypatch):
    path = saved("t5")
    monkeypatch.setattr("safetensors.safe_open", lambda *_, **__: pytest.fail("weights read"))
    assert read_config(BackbonePlan(path=path)).dropout_rate == 0.0
    check_backbone(BackbonePlan(path=path), ADAPTER)


@FAMILIES
def test_from_an_adapter_the_reference_is_its_frozen_copy(saved, tmp_path, architecture):
    path = saved(architecture)
    first = load(path)
    move(first)
    first.save(tmp_path / "adapter", tmp_path)
    policy = load(path, adapter=str(tmp_path / "adapter"))
    at_start = logprobs(policy)
    assert torch.equal(at_start, logprobs(first))
    assert torch.equal(ref_logprobs(policy), at_start)
    assert (at_start - logprobs(load(path))).abs().max() > 1e-3  # it is not the bare base
    base = policy.base_checksum()
    move(policy, seed=9)
    assert (logprobs(policy) - at_start).abs().max() > 1e-3
    assert torch.equal(ref_logprobs(policy), at_start)
    assert policy.base_checksum() == base == first.base_checksum()
    names = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in n and ".reference" not in n for n in names)
    policy.save(tmp_path / "second", tmp_path)
    assert not (tmp_path / "second" / "reference").exists()


def test_an_adapter_of_another_model_is_refused(saved, tmp_path):
    load(saved("gptj")).save(tmp_path / "adapter", tmp_path)
    plan = BackbonePlan(path=saved("t5"), adapter=str(tmp_path / "adapter"))
    with pytest.raises(SettingsError, match=r"policy.adapter: .* sits on q_proj, v_proj"):
        check_backbone(plan, ADAPTER)
    with pytest.raises(SettingsError, match=r"policy.adapter: .* no adapter_config.json"):
        check_backbone(BackbonePlan(path=saved("t5"), adapter=str(tmp_path)), ADAPTER)


PLAIN_PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
auto = AutoModelForSeq2SeqLM if sys.argv[1] == "t5" else AutoModelForCausalLM
base = auto.from_pretrained(sys.argv[2], dtype=torch.float32)
model = PeftModel.from_pretrained(base, sys.argv[3]).eval()
inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
if sys.argv[1] == "t5":
    inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10]])
with torch.no_grad():
    torch.save(model(**inputs).logits, sys.argv[4])
assert not any(name.startswith("lora_detox") for name in sys.modules)
"""


@pytest.mark.slow
def test_plain_peft_reads_the_saved_adapter_in_its_own_process(saved, tmp_path):
    path = saved("t5")
    policy = load(path)
    move(policy)
    policy.save(tmp_path / "adapter", tmp_path)
    arguments = ["t5", path, str(tmp_path / "adapter"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", PLAIN_PEFT, *arguments], check=True, cwd=tmp_path)
    ids, decoder_ids = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 9, 10]])
    with torch.no_grad():
        own = policy.model(input_ids=ids, decoder_input_ids=decoder_ids).logits
        with policy.model.disable_adapter():
            bare = policy.model(input_ids=ids, decoder_input_ids=decoder_ids).logits
    read = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(read, own, rtol=1e-5, atol=1e-6)
    assert (read - bare).abs().max() > 1e-3


def test_the_value_head_is_read_back_strictly(saved, tmp_path):
    policy = load(saved("gptj"))
    assert not any(p.any() for p in policy.value_head.parameters())  # it starts from 0
    move(policy)
    policy.save(tmp_path / "adapter", tmp_path)
    other = load(saved("gptj"))
    other.value_head.load(tmp_path)
    for one, two in zip(policy.value_head.parameters(), other.value_head.parameters(), strict=True):
        assert torch.equal(one, two)
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "value_head.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        other.value_head.load(tmp_path)


@FAMILIES
def test_the_checksum_notices_one_changed_weight_and_no_adapter(saved, architecture):
    policy = load(saved(architecture))
    start = policy.base_checksum()
    move(policy)
    assert policy.base_checksum() == start
    frozen = next(p for p in policy.backbone.parameters() if not p.requires_grad)
    with torch.no_grad():
        frozen.view(-1)[0] = torch.nextafter(frozen.view(-1)[0], torch.tensor(9.0))
    assert policy.base_checksum() != start


@FAMILIES
def test_parameters_are_counted_as_they_are(saved, architecture):
    counts = load(saved(architecture)).count_parameters()
    base = sum(p.numel() for p in tiny_backbone(architecture).parameters())
    head = 16 + 1
    modules = 18 if architecture == "t5" else 6
    adapter = modules * 2 * (16 + 16)
    assert counts == {"trainable": adapter + head, "total": base + adapter + head}


@FAMILIES
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("dora", [False, True])
def test_quantized_weights_load_write_and_train(saved, architecture, dora, quantization):
    pytest.importorskip("bitsandbytes")
    path = saved(architecture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # DoRA rounds a row's norm: in bf16 that is loud in a model this small
        dtype = "float32" if dora else "auto"
        policy = load(path, replace(ADAPTER, dora=dora), quantization=quantization, dtype=dtype)
        base = policy.base_checksum()
        kinds = {type(m).__name__ for m in policy.backbone.modules()}
        assert {"int8": "Linear8bitLt", "nf4": "Linear4bit"}[quantization] in kinds
        prompts = tiny_prompts(policy, [5, 4, 6, 3])
        responses = generate_responses(
            policy, prompts, SAMPLING, response_tokens=(3, 5), batch_size=4, seed=0
        )
        rollout = collect_rollout(
            policy, prompts, responses, SAMPLING, minibatch_size=4, passes=Passes(rows=2), seed=0
        )
        # the same microbatches give the same numbers, and a fresh adapter changes none
        assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
        outputs = policy.respond(*batch_for(policy))
        (outputs.logprobs.sum() + outputs.values.sum()).backward()
    for parameter in policy.adapter_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert any(p.grad.any() for p in policy.adapter_parameters())
    assert policy.base_checksum() == base
    full = sum(p.numel() for p in tiny_backbone(architecture).parameters())
    counts = policy.count_parameters()
    assert counts["total"] - counts["trainable"] == full
