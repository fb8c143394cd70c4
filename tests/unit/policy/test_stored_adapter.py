"""A run that begins with an adapter which PEFT wrote, of any kind that is accepted."""

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForCausalLM

from lora_detox.errors import ExportError
from lora_detox.export.merge import merged_model
from lora_detox.policy.adapter_kinds import (
    PROVEN,
)
from tests.tiny import move
from tests.unit.policy.adapters import (
    CASES,
    OTHER_KINDS,
    PLAIN,
    TARGETS,
    base_of,
    batch_for,
    close,
    load,
    logits_of,
    logprobs,
    lora,
    ref_logprobs,
    write,
)


def check_all(bases, architecture, adapter, tmp_path, *, merges=True):
    """What a kind has to show before it is accepted."""
    with torch.no_grad():  # where a gradient in all that learns is asked for nevertheless
        policy = load(bases, architecture, adapter)
    plain = PeftModel.from_pretrained(base_of(bases, architecture), adapter)
    close(logits_of(policy.model), logits_of(plain))
    start, kept, base = logprobs(policy), policy.frozen_states(), policy.base_checksum()
    assert torch.equal(ref_logprobs(policy), start)
    learning = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    move(policy, seed=9)
    moved = logprobs(policy)
    assert (moved - start).abs().max() > 1e-3
    assert torch.equal(ref_logprobs(policy), start)
    assert torch.equal(logprobs(policy), moved)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == learning
    assert policy.base_checksum() == base
    if kept is not None:
        logprobs(policy, kept)
        assert torch.equal(logprobs(policy, kept), moved)
        assert torch.equal(ref_logprobs(policy, kept), start)
    with policy.merged():
        close(logprobs(policy), moved)
    assert torch.equal(logprobs(policy), moved)
    policy.save(tmp_path / "saved", tmp_path)
    again = PeftModel.from_pretrained(base_of(bases, architecture), tmp_path / "saved")
    close(logits_of(again), logits_of(policy.model))
    if merges:
        close(logits_of(again.merge_and_unload()), logits_of(policy.model))
    evaluated = load(bases, architecture, str(tmp_path / "saved"), frozen_reference=False)
    close(logprobs(evaluated), moved)
    bare = load(bases, architecture, None)
    close(ref_logprobs(evaluated), logprobs(bare))


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_a_kind_of_lora_starts_as_plain_peft_learns_and_is_read_back(
    bases, tmp_path, architecture, name
):
    adapter = write(base_of(bases, architecture), lora(architecture, name), tmp_path / "start")
    check_all(bases, architecture, adapter, tmp_path)


TIED = {
    "head": {"target_modules": ["c_attn", "lm_head"]},
    "embedding": {"target_modules": ["c_attn", "wte"]},
    "whole_head": {"modules_to_save": ["lm_head"]},
    "whole_embedding": {"modules_to_save": ["wte"]},
    "both": {"modules_to_save": ["wte"], "ensure_weight_tying": True},
    "tokens": {"trainable_token_indices": [*range(3, 30)]},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TIED)
def test_an_output_matrix_that_is_the_embedding_learns_where_the_adapter_says(
    bases, tmp_path, name
):
    """GPT-2's is; an adapter on one of the two, merged into both, would act twice."""
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True, **TIED[name]}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **options)
    adapter = write(base_of(bases, "gpt2"), config, tmp_path / "start")
    check_all(bases, "gpt2", adapter, tmp_path, merges=False)
    plain = PeftModel.from_pretrained(base_of(bases, "gpt2"), adapter)
    apart = logits_of(plain)
    merged = merged_model(plain)
    close(logits_of(merged), apart)
    merged.save_pretrained(tmp_path / "merged")
    close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), apart)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(PROVEN - {"LORA"}))
def test_another_accepted_kind_does_so_too(bases, tmp_path, kind):
    options = {"target_modules": TARGETS["llama"], **OTHER_KINDS.get(kind, {})}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **options)
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    check_all(bases, "llama", adapter, tmp_path)


def test_what_peft_cannot_merge_is_an_error_that_says_so(bases, tmp_path):
    options = {"target_modules": ["q_proj"], "lora_bias": True}
    config = LoraConfig(task_type="CAUSAL_LM", r=2, **options)  # llama has no biases to add it to
    adapter = write(base_of(bases, "llama"), config, tmp_path / "start")
    load(bases, "llama", adapter)
    plain = PeftModel.from_pretrained(base_of(bases, "llama"), adapter)
    with pytest.raises(ExportError, match=r"export.merge: PEFT cannot merge .*lora_bias"):
        merged_model(plain)


@pytest.mark.parametrize(
    "name", ["head", "head_alone", "whole_head", "whole_norm", "whole_embedding", "tokens", "plain"]
)
def test_gradients_are_those_of_the_whole_model(bases, tmp_path, monkeypatch, name):
    """Against logits of every position at once, through the model's own forward pass."""
    monkeypatch.setattr("lora_detox.policy.token_stats.chunk_elements", lambda _: 80)
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    policy, plain = load(bases, "llama", adapter), base_of(bases, "llama")
    plain = PeftModel.from_pretrained(plain, adapter, is_trainable=True).eval()
    ids = torch.tensor([[5, 6, 7, 8, 4, 9, 11]])
    row = (ids[:, :3], ids[:, :3] > 0, ids[:, 3:], ids[:, 3:] > 0)
    policy.respond(*row, PLAIN).logprobs.sum().backward()
    log_p = plain(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    log_p.gather(-1, ids[:, 3:, None]).sum().backward()
    theirs = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
    ours = {n: p.grad for n, p in policy.model.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    for parameter, gradient in theirs.items():
        torch.testing.assert_close(ours[parameter], gradient, rtol=1e-3, atol=1e-4)
    moving = sum(p.numel() for p in policy.trainable_parameters())
    assert policy.count_parameters()["trainable"] == moving
    assert moving == sum(g.numel() for g in theirs.values()) + 16 + 1  # and the value head


def test_the_exact_kl_of_a_learning_head_is_0_at_the_start_and_not_after(bases, tmp_path):
    adapter = write(base_of(bases, "llama"), lora("llama", "whole_head"), tmp_path / "start")
    policy = load(bases, "llama", adapter)
    assert not policy.full_kl(*batch_for(policy)).any()
    head = policy.backbone.lm_head.modules_to_save["default"].weight
    with torch.no_grad():
        head.add_(0.3 * torch.randn_like(head))
    ids = torch.tensor([[5, 6, 7, 8, 4, 9, 11]])
    row = (ids[:, :3], ids[:, :3] > 0, ids[:, 3:], ids[:, 3:] > 0)
    with torch.no_grad():
        now = policy.model(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    with policy.reference():
        then = policy.model(input_ids=ids).logits[:, 2:-1].log_softmax(dim=-1)
    slow = (now.exp() * (now - then)).sum(dim=-1)
    assert slow.max() > 0.01
    close(policy.full_kl(*row, PLAIN), slow)


@pytest.mark.parametrize(
    ("name", "depth"),
    [("upper", 2), ("whole_embedding", 0), ("tokens", 0), ("norm_below", 0), ("head_alone", 0)],
)
def test_no_layer_is_replayed_above_what_learns(bases, tmp_path, name, depth):
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    assert load(bases, "llama", adapter).frozen_part.depth == depth


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["plain", "dora", "head", "tokens"])
def test_a_stored_adapter_on_quantized_weights_learns(bases, tmp_path, quantization, name):
    pytest.importorskip("bitsandbytes")
    adapter = write(base_of(bases, "llama"), lora("llama", name), tmp_path / "start")
    policy = load(bases, "llama", adapter, quantization=quantization, dtype="float32")
    start, base = logprobs(policy), policy.base_checksum()
    assert torch.equal(ref_logprobs(policy), start)
    move(policy)
    assert (logprobs(policy) - start).abs().max() > 1e-3
    assert torch.equal(ref_logprobs(policy), start)
    assert policy.base_checksum() == base
