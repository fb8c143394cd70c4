"""Logging, saving and uploading under their old names."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_detox.classic.caution import caution
from lora_detox.classic.config import PPOConfig
from lora_detox.classic.hub import upload
from lora_detox.classic.model_card import write_model_card
from lora_detox.classic.models import PreTrainedModelWrapper
from lora_detox.classic.stats import spread_of


class Publishing:
    """Where the trainer's numbers and weights go.

    Attributes:
        config: read whenever a method runs.
        model: the policy.
        tokenizer: saved beside it.
        accelerator: of the `accelerate` library; holds the trackers.
        current_step: how often `log_stats` was called.
    """

    config: PPOConfig
    model: PreTrainedModelWrapper
    tokenizer: PreTrainedTokenizerBase
    accelerator: Any
    current_step: int

    def log_stats(
        self,
        stats: Mapping[str, Any],
        batch: Mapping[str, Any],
        rewards: Sequence[Tensor] | Tensor,
        columns_to_log: Iterable[str] = ("query", "response"),
    ) -> None:
        """Send the numbers of a step to the trackers of `log_with`.

        Args:
            stats: of `step`.
            batch: `query` and `response` texts, for trackers that show tables.
            rewards: one score per response.
            columns_to_log: columns of `batch` in the table.

        Raises:
            ValueError: a column that the batch does not have, with a tracker that shows tables.
        """
        columns = tuple(columns_to_log)
        scores = [float(r) for r in rewards]
        gathered = self.accelerator.gather(
            torch.tensor(scores, device=self.accelerator.device)
        ).flatten()
        self.current_step += 1
        if not self.accelerator.is_main_process:
            return
        logs = dict(stats)
        if "query" not in batch and "response" not in batch:
            caution("log_stats: the batch has no 'query' and no 'response', so no text is logged")
        elif self.config.log_with == "wandb":
            logs["game_log"] = _table(batch, columns, scores)
        logs["env/reward_mean"] = float(gathered.mean())
        logs["env/reward_std"] = spread_of(gathered)
        logs["env/reward_dist"] = gathered.cpu().numpy()
        self.accelerator.log(logs, step=self.current_step)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write model (or adapter and value head), tokenizer and model card."""
        if not self.accelerator.is_main_process:
            return
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(str(save_directory))
        self.create_model_card(save_directory)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes.

        Args:
            repo_id: `owner/name`.
            **kwargs: of `hub.upload`, as `token` or `private`.

        Returns:
            Address of the commit.
        """
        return upload(self.save_pretrained, repo_id, **kwargs)

    def create_model_card(self, path: str | Path, model_name: str | None = None) -> None:
        """Write `README.md` into a folder.

        Args:
            path: is made if need be.
            model_name: title; None for the folder's name.
        """
        write_model_card(Path(path), model_name or Path(path).resolve().name, self.model)

    def gather_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Means over all processes of those statistics that are tensors of one size everywhere."""
        return {
            name: self.accelerator.reduce(value.to(self.accelerator.device), "mean")
            if isinstance(value, Tensor) and value.dim() == 0
            else value
            for name, value in stats.items()
        }


def _table(batch: Mapping[str, Any], columns: tuple[str, ...], scores: list[float]) -> Any:
    missing = [name for name in columns if name not in batch]
    if missing:
        raise ValueError(f"columns_to_log: the batch has no {', '.join(missing)}")
    import wandb  # noqa: PLC0415 - an extra

    rows = [list(row) for row in zip(*(batch[name] for name in columns), scores, strict=True)]
    return wandb.Table(columns=[*columns, "reward"], rows=rows)
