"""Products by oneDNN say what PyTorch's own say, with the gradients of the states."""

import pytest
import torch
from torch import nn

from lora_detox import machine
from lora_detox.policy import products
from lora_detox.policy.lean import make_lean
from lora_detox.types import Sampling
from tests.tiny import tiny_policy


@pytest.fixture(params=["AVX2", "AVX-512"])
def by_onednn(monkeypatch, request):
    """As if this CPU preferred oneDNN; counts the products that it is asked for."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    for module in ("lora_detox.policy.products", "lora_detox.policy.lean"):
        monkeypatch.setattr(f"{module}.multiplies_by_onednn", lambda: True)
    monkeypatch.setattr(products, "onednn_has_avx512", lambda: request.param == "AVX-512")
    for bound in ("ONEDNN_WEIGHTS", "ONEDNN_COLUMNS"):
        monkeypatch.setattr(f"lora_detox.policy.products.{bound}", 1)
    asked = []
    plain = torch.ops.mkldnn._linear_pointwise

    def counted(*arguments):
        asked.append(arguments[0].shape)
        return plain(*arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return asked


def frozen_layer(inputs, outputs, bias):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (3, 7, 24), (16, 1, 24), (1, 24)])
def test_a_frozen_layer_and_the_gradient_of_its_input_are_torchs(by_onednn, shape, bias):
    layer = frozen_layer(24, 40, bias)
    x, upstream = torch.randn(shape), torch.randn(*shape[:-1], 40)
    plain = x.clone().requires_grad_()
    wanted = layer(plain)
    wanted.backward(upstream)
    model = nn.Sequential(layer)
    make_lean(model)
    own = x.clone().requires_grad_()
    found = model(own)
    found.backward(upstream)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own.grad, plain.grad, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
    backward = products.onednn_has_avx512()
    assert [shape[-1] for shape in by_onednn] == [24, *[40] * backward, 24]


def test_a_state_that_is_a_view_with_strides_is_read_as_it_is(by_onednn):
    layer = frozen_layer(24, 40, bias=True)
    x = torch.randn(24, 6).t()
    wanted = layer(x)
    assert not x.is_contiguous()
    torch.testing.assert_close(products.linear(x, layer.weight, layer.bias), wanted)
    columns = torch.randn(6, 48)[:, ::2]
    torch.testing.assert_close(
        products.linear(columns, layer.weight, layer.bias), layer(columns), rtol=1e-5, atol=1e-5
    )
    assert len(by_onednn) == 2


@pytest.mark.parametrize("learns", ["weight", "bias"])
def test_a_layer_that_learns_keeps_its_gradient(by_onednn, learns):
    layer = frozen_layer(24, 40, bias=True)
    getattr(layer, learns).requires_grad_(True)
    model = nn.Sequential(layer)
    make_lean(model)
    model(torch.randn(3, 24)).sum().backward()
    assert getattr(layer, learns).grad.abs().sum() > 0
    assert not by_onednn


@pytest.mark.parametrize("case", ["bf16", "fp64", "no rows", "autocast", "meta"])
def test_what_onednn_is_not_for_is_left_to_torch(by_onednn, case):
    layer = frozen_layer(24, 40, bias=True)
    model = nn.Sequential(layer)
    make_lean(model)
    kinds = {"bf16": torch.bfloat16, "fp64": torch.float64}
    model.to(kinds.get(case, torch.float32))
    x = torch.randn(0 if case == "no rows" else 3, 24, dtype=kinds.get(case, torch.float32))
    if case == "meta":
        model, x = model.to("meta"), x.to("meta")
    with torch.autocast("cpu", enabled=case == "autocast"):
        out = model(x)
    assert out.shape == (len(x), 40)
    assert out.dtype == (torch.bfloat16 if case == "autocast" else x.dtype)
    assert not by_onednn


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_a_policy_and_its_gradient_are_those_without(architecture, by_onednn, monkeypatch):
    def numbers(preferred):
        for module in ("lora_detox.policy.products", "lora_detox.policy.lean"):
            monkeypatch.setattr(f"{module}.multiplies_by_onednn", lambda: preferred)
        policy = tiny_policy(architecture)
        for name, p in policy.model.named_parameters():
            if p.requires_grad:
                seed = sum(name.encode())
                p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)) / 8
        make_lean(policy.model)
        ids = torch.arange(3, 15).view(2, 6)
        mask = torch.ones_like(ids, dtype=torch.bool)
        out = policy.respond(ids, mask, ids.flip(0), mask, Sampling())
        (out.logprobs.sum() + out.values.sum()).backward()
        return [out.logprobs, out.values, *(p.grad for p in policy.adapter_parameters())]

    plain = numbers(preferred=False)
    assert not by_onednn
    for one, other in zip(numbers(preferred=True), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert len(by_onednn) > 4


@pytest.mark.parametrize(
    ("threads", "avx512", "columns", "taken"),
    [
        (1, False, 1024, False),
        (1, False, 2048, True),
        (1, True, 1024, True),
        (2, False, 1024, True),
    ],
)
def test_small_products_are_left_to_torch(by_onednn, monkeypatch, threads, avx512, columns, taken):
    monkeypatch.setattr(products, "onednn_has_avx512", lambda: avx512)
    monkeypatch.setattr(products, "ONEDNN_WEIGHTS", machine.ONEDNN_WEIGHTS)
    monkeypatch.setattr(products, "ONEDNN_COLUMNS", machine.ONEDNN_COLUMNS)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    products.linear(torch.ones(3, 256), torch.ones(columns, 256), None)
    products.linear(torch.ones(3, 256), torch.ones(512, 256), None)
    assert bool(by_onednn) is taken
    assert len(by_onednn) < 2


@pytest.mark.parametrize(
    ("capabilities", "vendor", "isa", "wanted"),
    [
        ({"avx2": True}, "AuthenticAMD", "", (True, False)),
        ({"avx2": True}, "AuthenticAMD", "SSE41", (False, False)),
        ({"avx2": True}, "GenuineIntel", "", (False, False)),
        ({"avx2": True, "avx512_f": True}, "AuthenticAMD", "", (True, True)),
        ({"avx2": True, "avx512_f": True}, "AuthenticAMD", "AVX512_CORE", (True, True)),
        ({"avx2": True, "avx512_f": True}, "AuthenticAMD", "AVX2", (True, False)),
        ({}, "AuthenticAMD", "", (False, False)),
    ],
)
def test_which_cpus_prefer_onednn(monkeypatch, capabilities, vendor, isa, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(machine, "_cpu_facts", lambda: f"vendor_id\t: {vendor}\n")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    asked = (machine.multiplies_by_onednn, machine.onednn_has_avx512)
    assert tuple(question.__wrapped__() for question in asked) == wanted
