"""What is computed in fewer passes says the same as the modules that it replaces."""

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.models.gptj.modeling_gptj import GPTJAttention
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from lora_detox.policy.lean import RMS_NORMS, make_lean
from tests.tiny import ARCHITECTURES, tiny_policy

# A bf16 result may differ from the exact one by half a unit in its last place, 2**-9 of its size.
RELATIVE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}


def outputs_and_gradients(module, x, upstream, parameters=()):
    x = x.detach().clone().requires_grad_()
    out = module(x)
    out.backward(upstream.to(out.dtype))
    found = [out.detach().float(), x.grad.float(), *(p.grad.float() for p in parameters)]
    for parameter in parameters:
        parameter.grad = None
    return found


def assert_close(found, wanted, dtype):
    for one, other in zip(found, wanted, strict=True):
        scale = other.abs().max()
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=2 * RELATIVE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [T5LayerNorm, LlamaRMSNorm])
def test_the_norm_and_its_gradient_are_those_of_the_plain_module(norm, dtype):
    assert norm.__name__ in RMS_NORMS
    plain = norm(48).to(dtype)
    plain.weight.data.uniform_(0.5, 2).requires_grad_(False)
    plain.weight.requires_grad_(False)
    exact, lean = copy.deepcopy(plain).float(), copy.deepcopy(plain)
    make_lean(lean)
    x, upstream = torch.randn(3, 5, 48, dtype=dtype), torch.randn(3, 5, 48, dtype=dtype)
    wanted = outputs_and_gradients(exact, x.float(), upstream)
    assert_close(outputs_and_gradients(lean, x, upstream), wanted, dtype)


def test_a_norm_that_learns_keeps_its_gradient():
    norm = T5LayerNorm(16)
    make_lean(norm)
    norm(torch.randn(2, 16)).sum().backward()
    assert norm.weight.grad.abs().sum() > 0


class OneLinear(nn.Module):
    def __init__(self, dtype, bias):
        super().__init__()
        self.q_proj = nn.Linear(24, 40, bias=bias, dtype=dtype)

    def forward(self, x):
        return self.q_proj(x)


def lora_module(dtype, bias=True, **options):
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], **options)
    module = inject_adapter_in_model(config, OneLinear(dtype, bias))
    for name, parameter in module.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_lora_layer_and_its_gradients_are_pefts(dtype, bias):
    plain = lora_module(dtype, bias)
    exact, lean = copy.deepcopy(plain).float(), copy.deepcopy(plain)
    make_lean(lean)
    x, upstream = torch.randn(3, 5, 24, dtype=dtype), torch.randn(3, 5, 40, dtype=dtype)
    wanted = outputs_and_gradients(
        exact, x.float(), upstream, [p for p in exact.parameters() if p.requires_grad]
    )
    learned = [p for p in lean.parameters() if p.requires_grad]
    assert len(learned) == 2
    assert all(p.dtype == torch.float32 for p in learned)
    assert_close(outputs_and_gradients(lean, x, upstream, learned), wanted, dtype)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.5}])
def test_what_is_not_plain_lora_is_left_to_peft(options):
    plain = lora_module(torch.float32, **options).train()
    lean = copy.deepcopy(plain)
    make_lean(lean)
    x = torch.randn(3, 24)
    torch.manual_seed(1)
    wanted = plain(x)
    torch.manual_seed(1)
    assert torch.equal(lean(x), wanted)


def test_an_adapter_that_is_off_leaves_the_base_alone():
    module = lora_module(torch.float32)
    make_lean(module)
    module.q_proj.enable_adapters(False)
    x = torch.randn(3, 24)
    assert torch.equal(module(x), module.q_proj.base_layer(x))


def test_the_spelled_out_gelu_becomes_the_kernel_of_the_same_formula():
    model = nn.Sequential(nn.Linear(4, 4), NewGELUActivation())
    x = torch.linspace(-6, 6, 400).view(100, 4)
    plain = model[1](x)
    make_lean(model)
    assert isinstance(model[1], nn.GELU)
    torch.testing.assert_close(model[1](x), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_whole_backbone_says_the_same(architecture):
    backbone = copy.deepcopy(tiny_policy(architecture).backbone)
    ids = torch.randint(3, 20, (2, 7))
    inputs = {"input_ids": ids}
    if backbone.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :4]
    with torch.no_grad():
        plain = backbone(**inputs).logits
        make_lean(backbone)
        make_lean(backbone)  # a second time changes nothing
        lean = backbone(**inputs).logits
    torch.testing.assert_close(lean, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_all_rows_read_one_rotary_table_of_gptj_and_the_model_says_the_same():
    plain = copy.deepcopy(tiny_policy("gptj").backbone)
    lean = copy.deepcopy(plain)
    make_lean(lean)
    lean = pickle.loads(pickle.dumps(copy.deepcopy(lean)))
    ids, mask = torch.randint(3, 20, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[0, :4] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    assert torch.equal(lean(**inputs).logits, plain(**inputs).logits)
    attentions = [one for one in lean.modules() if isinstance(one, GPTJAttention)]
    assert len(attentions) > 1
    for attention in attentions:
        table = attention._get_embed_positions(inputs["position_ids"])
        assert len(table) == 3
        assert table.stride(0) == 0
        assert table.data_ptr() == attention.embed_positions.data_ptr()


def test_a_copy_of_a_lean_model_computes_with_its_own_weights():
    module = lora_module(torch.float32)
    make_lean(module)
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert module(torch.ones(1, 24)).abs().sum() > 0
    assert twin(torch.ones(1, 24)).abs().sum() == 0


def test_equal_masks_of_the_layers_are_one_tensor_and_the_model_says_the_same():
    policy = tiny_policy("gpt_neo")
    make_lean(policy.backbone)
    masks = [
        module.bias
        for module in policy.backbone.modules()
        if type(module).__name__ == "GPTNeoSelfAttention"
    ]
    assert len(masks) > 1
    kinds = {bytes(mask.numpy().tobytes()) for mask in masks}
    assert len({mask.data_ptr() for mask in masks}) == len(kinds)
    plain = copy.deepcopy(policy.backbone)
    ids = torch.arange(3, 11)[None]
    before = plain(ids).logits
    for module in plain.modules():  # each its own again
        for name in module._non_persistent_buffers_set:
            module._buffers[name] = module._buffers[name].clone()
    assert torch.equal(plain(ids).logits, before)
