"""What a backbone that is divided over processes cannot be combined with."""

from lora_detox.choices import DecodingKind, QuantizationType, Stage
from lora_detox.errors import SettingsError
from lora_detox.processes import launched_sharded
from lora_detox.settings.groups import Settings


def asks_for_shares(settings: Settings) -> bool:
    """Whether the setting or accelerate's launcher wants a share of the layers in each process.

    Args:
        settings: as composed.

    Returns:
        True also with one process, whose share is the whole.
    """
    return settings.policy.sharded or launched_sharded()


def check_sharded(settings: Settings) -> None:
    """Find what needs whole weights where each process keeps a share of them.

    Args:
        settings: as composed.

    Raises:
        SettingsError: `policy.sharded`, or accelerate's FSDP or ZeRO-3, with quantized weights, a
            decoding that reads or changes weights, or a stage of one process.
    """
    if not asks_for_shares(settings):
        return
    asked = (
        "policy.sharded=true"
        if settings.policy.sharded
        else "accelerate launch with FSDP or ZeRO-3"
    )
    if settings.quantization.type is not QuantizationType.none:
        raise SettingsError(
            f"{asked} divides plain weights, but quantization={settings.quantization.type.value}; "
            "want quantization=none, or whole weights in each process"
        )
    if settings.decoding.name is not DecodingKind.plain:
        raise SettingsError(
            f"{asked} and decoding={settings.decoding.name.value}: only plain decoding works on "
            "layers that are divided; want decoding=plain, or whole weights in each process"
        )
    if settings.stage not in (Stage.detox, Stage.evaluate):
        raise SettingsError(
            f"{asked} is for several processes, which stage={settings.stage.value} does not use; "
            "want stage=detox or stage=evaluate, or whole weights"
        )
