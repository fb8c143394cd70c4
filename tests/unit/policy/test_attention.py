"""Attention on a CPU in bf16: a pass chooses by its length, and says the same either way."""

import pytest
import torch

from lora_detox.policy import attention
from lora_detox.policy.anatomy import decoder_stack
from lora_detox.policy.attention import attend_by_length
from tests.tiny import tiny_backbone

CPU, BF16 = torch.device("cpu"), torch.bfloat16
SWITCHING = ("t5", "llama", "gpt2", "bart", "gpt_neox")


def backbone(architecture):
    """As `load_policy` has it on a CPU in bf16, with weights whose rounding is small."""
    model = tiny_backbone(architecture).eval()
    model.set_attn_implementation("eager")
    return model


def logits_and_gradient(model, ids, mask):
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    logits = model(**inputs).logits.float()
    real = logits if model.config.is_encoder_decoder else logits[mask.bool()]
    real.log_softmax(-1)[..., 5].sum().backward()
    gradient, embeddings.grad = embeddings.grad.float(), None
    return real.detach(), gradient


@pytest.mark.parametrize("architecture", SWITCHING)
def test_a_long_pass_is_fused_a_short_one_is_not_and_both_say_the_same(architecture, monkeypatch):
    monkeypatch.setattr(attention, "EAGER_SCORES", 36)
    model = backbone(architecture)
    ids = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    plain = logits_and_gradient(model, ids, mask)
    attend_by_length(model, CPU, BF16)
    stack = decoder_stack(model)
    fused = logits_and_gradient(model, ids, mask)
    assert stack.config._attn_implementation == "sdpa"
    for one, other in zip(fused, plain, strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
    assert not all(torch.equal(one, other) for one, other in zip(fused, plain, strict=True))
    logits_and_gradient(model, ids[:, :6], torch.ones_like(ids[:, :6]))
    assert stack.config._attn_implementation == "eager"


def test_a_step_with_a_cache_and_a_long_query_of_an_encoder(monkeypatch):
    monkeypatch.setattr(attention, "EAGER_SCORES", 36)
    model = backbone("t5")
    attend_by_length(model, CPU, BF16)
    ids = torch.full((2, 9), 5)
    encoded = model.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    assert model.get_encoder().config._attn_implementation == "sdpa"
    decoder = model.get_decoder()
    for width, chosen in ((1, "eager"), (4, "eager"), (5, "sdpa")):  # 9, 36 and 45 scores
        decoder(input_ids=ids[:, :width], encoder_hidden_states=encoded)
        assert decoder.config._attn_implementation == chosen


@pytest.mark.parametrize(
    ("architecture", "device", "dtype"),
    [
        ("gemma2", CPU, BF16),  # fused attention would leave out the bound on its scores
        ("gptj", CPU, BF16),  # has no fused attention
        ("llama", CPU, torch.float32),
        ("llama", torch.device("cuda"), BF16),
    ],
)
def test_where_there_is_no_choice_no_pass_chooses(architecture, device, dtype):
    model = tiny_backbone(architecture)
    before = decoder_stack(model).config._attn_implementation
    attend_by_length(model, device, dtype)
    assert not decoder_stack(model)._forward_pre_hooks
    chosen = "eager" if (device, dtype) == (CPU, BF16) else before
    assert decoder_stack(model).config._attn_implementation == chosen
