"""What rollout=vllm cannot do, found before anything heavy is imported."""

from urllib.parse import urlsplit

from lora_detox.choices import RolloutEngine, Stage, TrainerKind
from lora_detox.errors import SettingsError
from lora_detox.settings.groups import Settings

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM can be started for (--max-lora-rank)."""
_INITS = ("true", "gaussian", "orthogonal")
"""Initialisations that leave the base as the server has it."""


def check_rollout(settings: Settings) -> None:
    """Find settings of a run that a vLLM server cannot serve.

    Args:
        settings: as composed.

    Raises:
        SettingsError: with what was got, what is wanted and the key to change.
    """
    if settings.rollout.engine is RolloutEngine.local or settings.stage is not Stage.detox:
        return
    _check_url(settings.rollout.url)
    adapter, generation, trainer = settings.adapter, settings.generation, settings.algorithm.trainer
    if trainer.kind is not TrainerKind.native:
        raise SettingsError(
            f"rollout=vllm: algorithm={trainer.kind.value} samples by itself; want rollout=local, "
            "or a method of the main path (algorithm=ppo, rloo, grpo, reinforce)"
        )
    if adapter.dora:
        raise SettingsError(
            "adapter.dora: got true; vLLM has no DoRA (its magnitudes are not in a LoRA request); "
            "want adapter=lora, or rollout=local"
        )
    if adapter.init.lower() not in _INITS:
        raise SettingsError(
            f"adapter.init: got {adapter.init}, which changes the base weights that the server "
            f"has; want one of {', '.join(_INITS)} with rollout=vllm"
        )
    if adapter.rank > VLLM_RANKS[-1]:
        raise SettingsError(
            f"adapter.rank: got {adapter.rank}; vLLM takes ranks up to {VLLM_RANKS[-1]}"
        )
    for key, value, whole in (("top_k", generation.top_k, 0), ("top_p", generation.top_p, 1)):
        if value != whole:
            raise SettingsError(
                f"generation.{key}: got {value}; with rollout=vllm a token at the edge would be "
                f"possible there and impossible here, so want {whole}"
            )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        fits = False
    if not fits:
        raise SettingsError(
            f"rollout.url: got {url}; want that of a vLLM server, as http://127.0.0.1:8000"
        )
