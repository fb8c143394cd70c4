"""Where the adapter sits, by family, targets and scope."""

import json
import re

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from lora_detox.errors import SettingsError
from lora_detox.policy.adapter import AdapterPlan, interpolate_adapter, lora_config
from tests.tiny import ARCHITECTURES, tiny_backbone, tiny_policy

T5_DEFAULT = {
    *(f"encoder.block.{i}.layer.0.SelfAttention.{p}" for i in range(3) for p in "qv"),
    *(f"decoder.block.{i}.layer.0.SelfAttention.{p}" for i in range(3) for p in "qv"),
    *(f"decoder.block.{i}.layer.1.EncDecAttention.{p}" for i in range(3) for p in "qv"),
}
GPTJ_DEFAULT = {f"transformer.h.{i}.attn.{p}_proj" for i in range(3) for p in "qv"}


def adapted(policy):
    modules = policy.backbone.named_modules()
    return {name for name, module in modules if isinstance(module, BaseTunerLayer)}


def layers(names, *, stack, indices):
    return {n for n in names if re.match(rf"{stack}\.({'|'.join(map(str, indices))})\.", n)}


@pytest.mark.parametrize(
    ("architecture", "scope", "expected"),
    [
        ("t5", "all", T5_DEFAULT),
        ("t5", "decoder", {n for n in T5_DEFAULT if n.startswith("decoder")}),
        ("t5", "last_1", layers(T5_DEFAULT, stack=r"decoder\.block", indices=[2])),
        ("t5", "last_2", layers(T5_DEFAULT, stack=r"decoder\.block", indices=[1, 2])),
        ("gptj", "all", GPTJ_DEFAULT),
        ("gptj", "decoder", GPTJ_DEFAULT),
        ("gptj", "last_1", layers(GPTJ_DEFAULT, stack=r"transformer\.h", indices=[2])),
        ("gptj", "last_3", GPTJ_DEFAULT),
    ],
)
def test_the_scope_chooses_the_layers(architecture, scope, expected):
    policy = tiny_policy(architecture, scope=scope)
    assert adapted(policy) == expected
    assert policy.count_parameters()["trainable"] == sum(
        p.numel() for p in policy.trainable_parameters()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_is_every_linear_layer_but_the_output_matrix(architecture):
    policy = tiny_policy(architecture, targets=("all-linear",))
    kinds = ("Linear", "Conv1D")
    plain = tiny_backbone(architecture)
    linear = {n for n, m in plain.named_modules() if type(m).__name__ in kinds}
    assert adapted(policy) == linear - {"lm_head"}
    assert len(linear) > 6


def test_the_config_can_be_written_as_json():
    config = lora_config(AdapterPlan(rank=2, alpha=4.0), tiny_backbone("t5").config)
    assert isinstance(config.target_modules, set | list)
    json.dumps(sorted(config.target_modules))


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_rslora_scales_by_the_root_of_the_rank(architecture):
    for rslora, scaling in ((False, 8.0 / 4), (True, 8.0 / 2)):
        policy = tiny_policy(architecture, rank=4, alpha=8.0, rslora=rslora)
        layers_ = [m for m in policy.backbone.modules() if isinstance(m, BaseTunerLayer)]
        assert {m.scaling["default"] for m in layers_} == {scaling}


@pytest.mark.parametrize("architecture", ["t5", "gptj"])
def test_dora_learns_a_magnitude_too_and_survives_saving(architecture, tmp_path):
    policy = tiny_policy(architecture, dora=True)
    names = [n for n, p in policy.model.named_parameters() if p.requires_grad]
    assert any("magnitude" in n for n in names)
    checksum = policy.base_checksum()
    policy.save(tmp_path / "adapter", tmp_path)
    again = PeftModel.from_pretrained(tiny_backbone(architecture), tmp_path / "adapter").eval()
    ids = torch.tensor([[5, 6, 7]])
    inputs = {"input_ids": ids}
    if architecture == "t5":
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, policy.model(**inputs).logits)
    assert policy.base_checksum() == checksum


def refused(architecture, **changes):
    plan = AdapterPlan(**({"rank": 2, "alpha": 4.0} | changes))
    with pytest.raises(SettingsError) as caught:
        lora_config(plan, tiny_backbone(architecture).config)
    return str(caught.value)


def test_a_target_that_matches_nothing_lists_the_candidates():
    message = refused("t5", targets=("q", "banana"))
    assert message.startswith("adapter.targets: banana matches no linear module of this t5 model")
    assert "candidates: k, o, q, v, wi_0, wi_1, wo, or all-linear" in message
    assert "k_proj" in refused("gptj", targets=("q",))


def test_a_scope_beyond_the_model_says_how_deep_it_is():
    for scope in ("last_99", "last_0"):
        assert f"adapter.scope={scope}: the model has 3 layers, want 1 to 3" in refused(
            "gptj", scope=scope
        )
    assert "want all, decoder or last_N" in refused("t5", scope="encoder")
    only_encoder = ("encoder.block.0.layer.0.SelfAttention.q",)
    assert "leaves none of the 1 modules" in refused("t5", scope="decoder", targets=only_encoder)


def test_an_update_from_zero_is_scaled_and_nothing_is_added():
    torch.manual_seed(0)
    first = {
        "q.lora_A.default.weight": torch.randn(2, 5),
        "q.lora_B.default.weight": torch.zeros(4, 2),
    }
    last = {name: torch.randn_like(tensor) for name, tensor in first.items()}
    between = interpolate_adapter(first, last, 0.3)

    def update(weights):
        return weights["q.lora_B.default.weight"] @ weights["q.lora_A.default.weight"]

    torch.testing.assert_close(update(between), 0.3 * update(last))


def test_an_adapter_that_starts_from_another_moves_in_both_factors():
    torch.manual_seed(0)
    first = {
        "q.lora_A.default.weight": torch.randn(2, 5),
        "q.lora_B.default.weight": torch.randn(4, 2),
    }
    last = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in first.items()}
    between = interpolate_adapter(first, last, 0.3)
    for name, weight in first.items():
        torch.testing.assert_close(between[name], torch.lerp(weight, last[name], 0.3))
