"""What a run hands over with its adapter: how it was asked, how it was begun, and its card."""

from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig

from lora_detox.choices import TaskKind
from lora_detox.export.facts import card_facts
from lora_detox.export.finished_run import FinishedRun
from lora_detox.metrics import names
from lora_detox.report.card import model_card
from lora_detox.settings import Settings, settings_yaml
from lora_detox.settings.from_run import sets_keys_alone
from lora_detox.settings.stored import stored_json

EXAMPLES = {
    TaskKind.summarization: "#Person1#: Are you coming? #Person2#: Yes, at six.",
    TaskKind.continuation: "I think that people who",
    TaskKind.rewriting: "This is a really stupid idea.",
}
"""A mild prompt of each kind, for the lines that show how to write with an adapter."""


def usage(settings: Settings) -> dict[str, Any]:
    """Fields of `lora_detox.report.next_steps.Usage`: an example prompt as the run would ask it."""
    task = settings.task
    return {
        "text": task.template.format(prompt=EXAMPLES[task.kind]),
        "chat": task.chat,
        "system": task.system,
        "new_tokens": settings.generation.response_tokens[1],
    }


def own_overrides(run_dir: Path) -> dict[str, list[str]]:
    """The overrides of the command line that began a run; nothing for a run from Python."""
    if not HydraConfig.initialized():
        return {}
    composed = HydraConfig.get()
    if not str(run_dir.resolve()).startswith(str(Path(composed.runtime.output_dir).resolve())):
        return {}  # of another run in this process
    given = list(composed.overrides.task)
    if "resume=true" in given and sets_keys_alone(given):
        return {}  # goes on with the settings of its folder, and was begun by another command
    return {"overrides": given}


def run_card(settings: Settings, run_dir: Path, summary: dict[str, Any]) -> str:
    """README.md of the run's adapter, as stage=export would write it.

    Args:
        settings: of the run.
        run_dir: with the adapter in it.
        summary: of the run.

    Returns:
        The card.
    """
    adapter = run_dir / "adapter"
    source = FinishedRun(
        folder=run_dir,
        config=yaml.safe_load(settings_yaml(settings)),
        summary=summary,
        adapter_config=stored_json(adapter / "adapter_config.json", "run", "want an adapter"),
    )
    revision = settings.policy.revision
    facts = card_facts(source, settings, source.base, revision, adapter, None)
    return model_card(facts, summary, names.METRICS)
