"""Settings -> who samples the responses of training; checked before weights load."""

from pathlib import Path

from lora_detox.builders.policy import adapter_path
from lora_detox.choices import RolloutEngine, Stage
from lora_detox.errors import SettingsError
from lora_detox.policy.plain_lora import more_than_factors
from lora_detox.policy.policy import LoraPolicy
from lora_detox.policy.stored_adapter import read_stored
from lora_detox.rollout import Generate, VllmRollouts, VllmServer, generate_responses
from lora_detox.settings import Settings


def uses_server(settings: Settings) -> bool:
    """Whether a server samples in this run."""
    return settings.stage is Stage.detox and settings.rollout.engine is RolloutEngine.vllm


def check_server(settings: Settings, *, encoder_decoder: bool) -> None:
    """Before weights load: the server answers, and can serve what is trained.

    Args:
        settings: composed and checked.
        encoder_decoder: whether the policy has an encoder.

    Raises:
        SettingsError: an encoder-decoder, or a stored adapter that vLLM does not take.
        RolloutError: the server does not answer.
    """
    if not uses_server(settings):
        return
    if encoder_decoder:
        raise SettingsError(
            f"rollout=vllm with policy.path={settings.policy.path}: T5, BART and other "
            "encoder-decoders are not in vLLM, which reads prompt and response as one text; want "
            "rollout=local, or a decoder-only policy"
        )
    stored = adapter_path(settings.policy.adapter, settings)
    if stored is not None and (reason := more_than_factors(read_stored(stored))):
        raise SettingsError(
            f"policy.adapter: {stored}: vLLM takes plain LoRA alone, this has {reason}; want "
            "rollout=local"
        )
    _server(settings).models()


def generate_of(settings: Settings, policy: LoraPolicy) -> Generate:
    """Who answers the prompts of training.

    Args:
        settings: composed and checked.
        policy: whose adapter a server loads.

    Returns:
        The policy itself, or a server.

    Raises:
        RolloutError: the server does not answer.
    """
    if not uses_server(settings):
        return generate_responses
    rollout, server = settings.rollout, _server(settings)
    folder = Path(rollout.adapters or Path(settings.run_dir) / "vllm").expanduser()
    return VllmRollouts(
        server, server.models()[0], policy.save_adapter, folder, requests=rollout.requests
    )


def _server(settings: Settings) -> VllmServer:
    return VllmServer(settings.rollout.url, settings.rollout.timeout)
