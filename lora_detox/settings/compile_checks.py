"""What compiled passes cannot be combined with."""

from lora_detox.choices import Compile, QuantizationType, Stage, TrainerKind
from lora_detox.errors import SettingsError
from lora_detox.settings.groups import Settings
from lora_detox.settings.sharded_checks import asks_for_shares


def check_compile(settings: Settings) -> None:
    """Find what does not compile, or has no passes that are compiled.

    Args:
        settings: as composed.

    Raises:
        SettingsError: `policy.compile` with another stage or trainer, with layers that are divided
            over processes, or with int8 weights.
    """
    if settings.policy.compile is Compile.none:
        return
    asked, off = f"policy.compile={settings.policy.compile.value}", "policy.compile=none"
    trainer, quantization = settings.algorithm.trainer.kind, settings.quantization.type
    if settings.stage is not Stage.detox or trainer is not TrainerKind.native:
        here = f"stage={settings.stage.value}" if settings.stage is not Stage.detox else trainer
        raise SettingsError(f"{asked}: {here} has none of the passes that are compiled; want {off}")
    if asks_for_shares(settings):
        raise SettingsError(
            f"{asked}: the layers are divided over processes (policy.sharded, or accelerate's FSDP "
            f"or ZeRO-3), which meet in each of them; want {off}, or whole weights in each process"
        )
    if quantization is QuantizationType.int8:
        raise SettingsError(
            f"{asked}: quantization=int8 looks for outliers in the whole batch, so that rows which "
            f"are added to fill up a shape would change numbers; want {off}, or quantization=nf4"
        )
