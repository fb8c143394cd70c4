"""Settings -> which backbone to load, and which adapter to put on it."""

from pathlib import Path

from lora_detox.choices import Baseline, Stage, TrainerKind
from lora_detox.embedded import ADAPTER_NAMES, embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from lora_detox.errors import SettingsError
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.processes import processes
from lora_detox.settings import PolicySettings, Settings
from lora_detox.settings.sharded_checks import asks_for_shares

EMBEDDED_PREFIX = "embedded:"
EMBEDDED_POLICY = f"{EMBEDDED_PREFIX}policy"


def model_path(path: str, settings: Settings) -> str:
    """Folder or hub id behind a path: `embedded:policy` is the task's miniature."""
    return str(embedded_path(settings.task.miniature)) if path == EMBEDDED_POLICY else path


def adapter_path(adapter: str | None, settings: Settings) -> str | None:
    """Folder or hub id behind an adapter: `embedded:NAME` is one of the package.

    Args:
        adapter: as settings have it.
        settings: with debug.tiny_model the embedded adapter, which fits the miniature, is left out.

    Returns:
        The folder or id, or None.

    Raises:
        SettingsError: there is no embedded adapter of that name.
    """
    if adapter is None or not adapter.startswith(EMBEDDED_PREFIX):
        return adapter
    name = adapter.removeprefix(EMBEDDED_PREFIX)
    if name not in ADAPTER_NAMES:
        known = ", ".join(EMBEDDED_PREFIX + one for one in ADAPTER_NAMES)
        raise SettingsError(
            f"policy.adapter: got {adapter}, want {known}, a folder or a hub id, or null"
        )
    return None if settings.debug.tiny_model else str(embedded_path(name))


def policy_path(settings: Settings) -> str:
    """Folder or hub id of the policy's base; debug.tiny_model writes one into the run folder."""
    if settings.debug.tiny_model:
        miniature = embedded_path(settings.task.miniature)
        most = max(settings.generation.response_tokens[1], settings.sft.max_response_tokens)
        tokens = settings.data.max_query_tokens + most
        run_dir = Path(settings.run_dir)
        return str(processes().first(lambda: write_tiny_policy(miniature, run_dir, tokens)))
    return model_path(settings.policy.path, settings)


def backbone_plan(settings: Settings, path: str) -> BackbonePlan:
    """Which backbone to load; `path` is `policy.path` after embedded names are resolved."""
    policy, quantization = settings.policy, settings.quantization
    return BackbonePlan(
        path=path,
        revision=policy.revision,
        adapter=adapter_path(policy.adapter, settings),
        dtype=policy.dtype.value,
        quantization=quantization.type.value,
        int8_threshold=quantization.int8_threshold,
        double_quant=quantization.double_quant,
        device=settings.device,
        gradient_checkpointing=policy.gradient_checkpointing,
        sharded=processes().size > 1 and asks_for_shares(settings),
        allow_fp16_t5=policy.allow_fp16_t5,
        value_head=has_value_head(settings),
        chat=settings.task.chat,
        system=settings.task.system,
        trust_remote_code=policy.trust_remote_code,
    )


def trusted_code(policy: PolicySettings) -> dict[str, str]:
    """For the summary: whose Python files were run; nothing where none were."""
    return {"trusted_code": policy.path} if policy.trust_remote_code else {}


def has_value_head(settings: Settings) -> bool:
    """Whether values are estimated: on the main path, where they are the baseline."""
    algorithm = settings.algorithm
    native = algorithm.trainer.kind is TrainerKind.native
    return native and algorithm.baseline is Baseline.value


def adapter_plan(settings: Settings) -> AdapterPlan:
    """Which adapter to put on it."""
    adapter = settings.adapter
    return AdapterPlan(
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        targets=tuple(adapter.targets),
        scope=adapter.scope,
        rslora=adapter.rslora,
        dora=adapter.dora,
        init=adapter.init.lower(),
        force_init=adapter.force_init or settings.stage is Stage.sft,
    )
