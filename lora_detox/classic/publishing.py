"""Where a trainer's numbers and weights go: trackers, model card, hub."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor

from lora_detox import __version__
from lora_detox.classic.advice import caution
from lora_detox.classic.stats import deviation_of

_CARD = """---
library_name: {library}
tags:
- lora-detox
- ppo
- reinforcement-learning
{base_line}---

# {name}

A {kind} fine-tuned by proximal policy optimization with `lora_detox.classic` {version}.

```python
{usage}
```
"""
_PEFT = """from peft import AutoPeftModelFor{head}

model = AutoPeftModelFor{head}.from_pretrained("{name}")"""
_FULL = """from transformers import AutoModelFor{head}

model = AutoModelFor{head}.from_pretrained("{name}")"""


def log_to_trackers(
    accelerator: Any,
    step: int,
    stats: Mapping[str, Any],
    batch: Mapping[str, Any],
    scores: Sequence[float],
    columns: Sequence[str] | None,
) -> None:
    """Send the numbers of a step to the trackers of an accelerator.

    Args:
        accelerator: of the `accelerate` library; holds the trackers.
        step: number of the step.
        stats: of `PPOTrainer.step`.
        batch: texts by column.
        scores: one per response.
        columns: of `batch` that a tracker shows in a table; None where it shows no tables.

    Raises:
        ValueError: a column that the batch does not have.
    """
    mine = torch.tensor(list(scores), device=accelerator.device)
    gathered = accelerator.gather(mine).flatten()
    if not accelerator.is_main_process:
        return
    logs = dict(stats)
    if "query" not in batch and "response" not in batch:
        caution(
            "log_stats: the batch has no 'query' and no 'response', so no text is logged; put the "
            "texts into it: batch['query'], batch['response'] = queries, responses"
        )
    elif columns is not None:
        logs["game_log"] = _table(batch, columns, scores)
    logs["env/reward_mean"] = float(gathered.mean())
    logs["env/reward_std"] = deviation_of(gathered)
    logs["env/reward_dist"] = gathered.cpu().numpy()
    accelerator.log(logs, step=step)


def _table(batch: Mapping[str, Any], columns: Sequence[str], scores: Sequence[float]) -> Any:
    """A table of texts and scores for Weights & Biases."""
    missing = [name for name in columns if name not in batch]
    if missing:
        raise ValueError(
            f"log_stats: columns_to_log: the batch has no {', '.join(missing)}, only "
            f"{', '.join(batch)}; leave it out or put it into the batch"
        )
    import wandb  # noqa: PLC0415 - an extra

    rows = [list(row) for row in zip(*(batch[name] for name in columns), scores, strict=True)]
    return wandb.Table(columns=[*columns, "reward"], rows=rows)


def gather_means(stats: Mapping[str, Any], accelerator: Any) -> dict[str, Any]:
    """Means over all processes of those statistics that are scalar tensors; the rest as it is."""
    return {
        name: accelerator.reduce(value.to(accelerator.device), "mean")
        if isinstance(value, Tensor) and value.dim() == 0
        else value
        for name, value in stats.items()
    }


def write_model_card(
    folder: Path, name: str, *, base: str, adapter: bool, encoder_decoder: bool
) -> Path:
    """Write `README.md`; the hub is not contacted.

    Args:
        folder: is made if need be.
        name: title of the card.
        base: name of the model that was trained; empty where it is not known.
        adapter: LoRA weights alone.
        encoder_decoder: the model's family.

    Returns:
        Path of the card.
    """
    known = base and not Path(base).exists()  # a folder's path is nobody else's business
    head = "Seq2SeqLM" if encoder_decoder else "CausalLM"
    text = _CARD.format(
        library="peft" if adapter else "transformers",
        base_line=f"base_model: {base}\n" if known else "",
        name=name,
        kind="LoRA adapter" if adapter else "language model",
        version=__version__,
        usage=(_PEFT if adapter else _FULL).format(head=head, name=name),
    )
    folder.mkdir(parents=True, exist_ok=True)
    card = folder / "README.md"
    card.write_text(text, encoding="utf-8")
    return card


def upload(
    save: Callable[[str], Any],
    repo_id: str,
    *,
    token: Any = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload with lora_detox.classic",
    api_endpoint: str | None = None,
) -> str:
    """Write a folder and upload it as a model repository.

    Args:
        save: writes into the folder it is given.
        repo_id: `owner/name`; is created if need be.
        token: of the hub; None for the one that is logged in.
        private: visibility of a new repository.
        revision: branch.
        commit_message: of the upload.
        api_endpoint: another hub.

    Returns:
        Address of the commit.
    """
    api = HfApi(endpoint=api_endpoint, token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=revision
        )
    return str(commit.commit_url)
