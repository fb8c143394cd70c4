"""What a backbone that is divided over processes cannot be combined with."""

from lora_detox.choices import DecodingKind, QuantizationType, Stage
from lora_detox.errors import SettingsError
from lora_detox.processes import launched_sharded
from lora_detox.settings.groups import Settings


def check_sharded(settings: Settings) -> None:
    """Find what needs whole weights where each process keeps a share of them.

    Args:
        settings: as composed.

    Raises:
        SettingsError: `policy.sharded`, or accelerate's FSDP or ZeRO-3, with quantized weights, a
            decoding that reads or changes weights, or a stage of one process.
    """
    if not (settings.policy.sharded or launched_sharded()):
        return
    if settings.quantization.type is not QuantizationType.none:
        raise SettingsError(
            "policy.sharded=true divides plain weights, but quantization="
            f"{settings.quantization.type.value}; want quantization=none, or policy.sharded=false"
        )
    if settings.decoding.name is not DecodingKind.plain:
        raise SettingsError(
            f"policy.sharded=true and decoding={settings.decoding.name.value}: only plain decoding "
            "works on layers that are divided; want decoding=plain, or policy.sharded=false"
        )
    if settings.stage not in (Stage.detox, Stage.evaluate):
        raise SettingsError(
            f"policy.sharded=true is for several processes, which stage={settings.stage.value} "
            "does not use; want stage=detox or stage=evaluate, or policy.sharded=false"
        )
