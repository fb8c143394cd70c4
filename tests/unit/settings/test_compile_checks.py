"""What compiled passes are refused with, while settings are composed."""

import pytest

from lora_detox.api import compose_settings
from lora_detox.choices import Compile
from lora_detox.errors import SettingsError

COMPILED = ["task=gptj_continuation", "policy.compile=default"]


def test_nothing_is_compiled_unless_it_is_asked_for(tmp_path):
    assert compose_settings(COMPILED[:1], tmp_path / "run").policy.compile is Compile.none
    settings = compose_settings([*COMPILED, "quantization=nf4"], tmp_path / "run")
    assert settings.policy.compile is Compile.default


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=sft"], "stage=sft has none of the passes"),
        (["stage=plan"], "stage=plan has none of the passes"),
        (["algorithm=trl_grpo"], "trl_grpo has none of the passes"),
        (["policy.sharded=true"], r"layers are divided over processes.*whole weights"),
        (["quantization=int8"], r"int8 looks for outliers.*quantization=nf4"),
    ],
)
def test_what_has_no_compiled_passes_is_refused(overrides, message, tmp_path):
    with pytest.raises(SettingsError, match=f"policy.compile=default: .*{message}") as refusal:
        compose_settings([*COMPILED, *overrides], tmp_path / "run")
    assert "policy.compile=none" in str(refusal.value)
