"""Directions leave the MLP output matrices, and come back bit for bit."""

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig
from transformers.pytorch_utils import Conv1D

from lora_detox.decoding.projection import mlp_output, projected, toxic_directions
from lora_detox.policy.anatomy import decoder_layers
from tests.tiny import ARCHITECTURES, MORE_ARCHITECTURES, tiny_policy

MATRICES = {
    "t5": "DenseReluDense.wo",
    "gptj": "mlp.fc_out",
    "gpt_neo": "mlp.c_proj",
    "gpt2": "mlp.c_proj",
    "llama": "mlp.down_proj",
    "bart": "fc2",
    "opt": "fc2",
    "bloom": "mlp.dense_4h_to_h",
    "gpt_neox": "mlp.dense_4h_to_h",
    "granite": "mlp.down_proj",
    "gemma2": "mlp.down_proj",
}


def test_what_toxic_states_have_more_is_the_first_direction():
    draw = torch.Generator().manual_seed(0)
    common, toxic_part = torch.zeros(8), torch.zeros(8)
    common[0], toxic_part[3] = 50.0, 4.0
    civil = common + torch.randn(60, 8, generator=draw)
    toxic = common * 1.3 + toxic_part + torch.randn(60, 8, generator=draw)
    directions = toxic_directions(toxic, civil, 3)
    assert directions.shape == (8, 3)
    torch.testing.assert_close(directions.T @ directions, torch.eye(3, dtype=torch.float64))
    assert directions[3, 0].abs() > 0.95
    mean = civil.double().mean(dim=0)
    assert (directions.T @ mean / mean.norm()).abs().max() < 1e-9  # what all texts share stays


@pytest.mark.parametrize("targets", ["q", "all-linear"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MORE_ARCHITECTURES])
def test_matrices_lose_the_directions_and_are_restored(architecture, targets):
    more = {"targets": ("all-linear",)} if targets == "all-linear" else {}
    policy = tiny_policy(architecture, **more)
    layers = decoder_layers(policy.backbone)[1:]
    matrices = [mlp_output(layer) for layer in layers]
    for layer, matrix in zip(layers, matrices, strict=True):
        (name,) = (name for name, module in layer.named_modules() if module is matrix)
        assert name.endswith(MATRICES[architecture])
    width = policy.backbone.config.hidden_size
    draw = torch.Generator().manual_seed(1)
    columns = torch.linalg.qr(torch.randn(width, 2, generator=draw, dtype=torch.float64)).Q
    weights = {name: (p.data, p.data.clone()) for name, p in policy.model.named_parameters()}
    with projected(matrices, [columns] * len(matrices)):
        for matrix in matrices:
            inner = torch.randn(5, _inputs(matrix), generator=draw)
            out = matrix(inner) - matrix(torch.zeros_like(inner))  # without the bias
            assert (out.double() @ columns).abs().max() < 1e-5
            assert out.abs().max() > 0.01
    for name, parameter in policy.model.named_parameters():
        tensor, numbers = weights[name]
        assert parameter.data_ptr() == tensor.data_ptr()
        assert torch.equal(parameter, numbers)


def _inputs(matrix):
    base = matrix.get_base_layer() if hasattr(matrix, "get_base_layer") else matrix
    return base.weight.shape[0] if isinstance(base, Conv1D) else base.in_features


def test_an_error_within_restores_too():
    policy = tiny_policy("gptj")
    matrix = mlp_output(decoder_layers(policy.backbone)[-1])
    base = getattr(matrix, "base_layer", matrix)
    before = base.weight.data
    columns = torch.eye(16, 2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="on the way"), projected([matrix], [columns]):
        raise RuntimeError("on the way")
    assert base.weight.data_ptr() == before.data_ptr()


def test_a_mixture_of_experts_is_refused():
    config = MixtralConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    (layer,) = decoder_layers(AutoModelForCausalLM.from_config(config))
    with pytest.raises(ValueError, match="no MLP output matrix under a known name"):
        mlp_output(layer)
