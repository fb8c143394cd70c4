"""What the model card says of an exported run, paths of this machine left out."""

from pathlib import Path
from typing import Any

from lora_detox.export.finished_run import FinishedRun
from lora_detox.report.card import CardFacts
from lora_detox.settings import Settings

_SHOWN = (
    "task.name",
    "policy.dtype",
    "quantization.type",
    "adapter.rank",
    "adapter.alpha",
    "adapter.scope",
    "algorithm.name",
    "algorithm.iterations",
    "algorithm.rollout_batch_size",
    "algorithm.ppo_epochs",
    "algorithm.learning_rate",
    "algorithm.kl.coef",
    "algorithm.kl.target",
    "generation.response_tokens",
    "seed",
)


def card_facts(
    source: FinishedRun,
    settings: Settings,
    base: str,
    revision: str | None,
    target: Path,
    merged: dict[str, Any] | None,
) -> CardFacts:
    """What the card says; folders of this machine appear by their last name only."""
    data = str(source.config["data"]["path"])
    shown = []
    for key in _SHOWN:
        value: Any = source.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            shown.append((key, str(value)))
    return CardFacts(
        name=settings.export.repo_id or target.resolve().parent.name,
        base=base if _on_hub(base) else Path(base).name,
        base_revision=revision,
        base_on_hub=_on_hub(base),
        encoder_decoder=source.encoder_decoder,
        data=data if _on_hub(data) or data.startswith("embedded:") else Path(data).name,
        data_on_hub=_on_hub(data),
        license=settings.export.license,
        settings=shown,
        merged=merged,
        strength=settings.export.strength,
    )


def _on_hub(path: str) -> bool:
    """Whether a path is a hub id rather than something of this machine."""
    files = (".jsonl", ".json", ".csv", ".parquet", ".gz")
    local = path.startswith((".", "/", "~", "embedded:")) or Path(path).exists()
    return not local and not path.lower().endswith(files)
