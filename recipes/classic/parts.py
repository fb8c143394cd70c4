"""What both programs need beside their loop: command line, reward, and the numbers of each step."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

NUMBERS = {
    "kl": "objective/kl",
    "kl_coef": "objective/kl_coef",
    "clipped": "ppo/policy/clipfrac",
    "tokens": "tokens/responses_len_mean",
    "seconds": "time/ppo/total",
}
"""Name in metrics.json -> key of the statistics that `PPOTrainer.step` returns."""


def program_parser(doc: str, *, steps: int, learning_rate: float) -> argparse.ArgumentParser:
    """The command line, with the defaults of a program."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or hub id of the policy")
    parser.add_argument("--reward", required=True, help="folder or hub id of the classifier")
    parser.add_argument("--civil-label", default="nothate", help="label that is rewarded")
    parser.add_argument("--data", required=True, help="JSON lines")
    parser.add_argument("--out", required=True, help="folder for the model and metrics.json")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def build_reward(path: str, label: str) -> Callable[[list[str]], list[torch.Tensor]]:
    """The raw logit of the civil label, found by its name, one number per text."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    index = int(model.config.label2id[label])

    @torch.no_grad()
    def reward(texts: list[str]) -> list[torch.Tensor]:
        inputs = tokenizer(
            [text or " " for text in texts],
            padding=True,
            truncation=True,
            max_length=128,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return list(model(**inputs).logits[:, index].float())

    return reward


class History:
    """The numbers that tell whether each step was sound."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, step: int, stats: dict) -> None:
        """Keep and print the numbers of a step."""
        numbers = {name: round(stats[key], 4) for name, key in NUMBERS.items()}
        self.rows.append({"step": step, "reward": stats["ppo/mean_scores"], **numbers})
        print(json.dumps(self.rows[-1]), flush=True)

    def write(self, folder: str) -> None:
        """Write metrics.json."""
        (Path(folder) / "metrics.json").write_text(json.dumps(self.rows, indent=1) + "\n")
