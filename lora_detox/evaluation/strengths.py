"""At which strengths of its adapter each model of stage=evaluate answers."""

from collections.abc import Sequence

from lora_detox.errors import SettingsError
from lora_detox.evaluation.models import EvaluatedModel
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.policy.strength import strength_refusal
from lora_detox.settings import Settings

_KEY = "evaluation.strengths"


def strengths_of(model: EvaluatedModel, settings: Settings) -> tuple[float | None, ...]:
    """The strengths that a model is asked at, rising.

    Args:
        model: one of the call's.
        settings: composed and checked.

    Returns:
        None alone, the model as it is, where it has no adapter or no strengths are set.
    """
    strengths = settings.evaluation.strengths
    if model.adapter is None or not strengths:
        return (None,)
    return tuple(sorted(strength + 0.0 for strength in strengths))


def check_strengths(models: Sequence[EvaluatedModel], settings: Settings) -> None:
    """Find strengths that cannot be evaluated, before any weight loads.

    Args:
        models: of the call.
        settings: composed and checked.

    Raises:
        SettingsError: no model has an adapter, or one has an adapter without a strength.
    """
    strengths = settings.evaluation.strengths
    if not strengths:
        return
    adapters = [model.adapter for model in models if model.adapter is not None]
    if not adapters:
        names = ", ".join(model.name for model in models)
        raise SettingsError(
            f"{_KEY}: got {strengths}, but none of the models has an adapter ({names}); want a run "
            "or adapter folder in evaluation.models or policy.adapter, or []"
        )
    for adapter in adapters:
        reason = strength_refusal(read_stored(adapter))
        if reason is not None and any(one != 1 for one in strengths):
            raise SettingsError(
                f"{_KEY}: {adapter} can only be used at strength 1: {reason}; leave the strengths "
                "out (docs/adapters.md)"
            )
