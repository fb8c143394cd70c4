# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "accelerate==0.34.2",
#   "datasets==2.21.0",
#   "peft==0.13.2",
#   "torch",
#   "transformers==4.45.2",
#   "trl==0.11.4",
# ]
# ///
"""TRL 0.11.4's PPOTrainer with LoRA on given prompts: the peer. Run by the peer's own interpreter.

    VENV/bin/python peer_ppo.py --model DIR --reward DIR --civil nothate --prompts FILE --out DIR
        [--lr 1.41e-5] [--seed 0] [--last-layers N] [--epochs 4] [--targets q_proj,v_proj]

The prompts are those of our runs, as ids; the reward is the raw logit of the civil label on the
response. Every other number is TRL's default (adaptive KL 0.2 aiming at 6, whitening, clip 0.2,
value coefficient 0.1), minibatches as in its detoxification example. Writes OUT/adapter (PEFT) and
OUT/summary.json; a number that is not finite ends the run and stands there as `stopped`.
"""

import argparse
import json
import math
import random
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer  # noqa: E402

ALL_LINEAR = "all-linear"
"""PEFT's name for every linear layer but the output matrix."""


class CivilLogit:
    """Raw logit of the civil label for each text."""

    def __init__(self, path: str, civil: str) -> None:
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
        self.model = AutoModelForSequenceClassification.from_pretrained(path).float().eval()
        labels = self.model.config.id2label.items()
        self.civil = next(int(index) for index, label in labels if label == civil)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Scores [B], higher is better."""
        batch = self.tokenizer(
            [text or " " for text in texts],
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        return self.model(**batch).logits[:, self.civil].float()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "reward", "civil", "prompts", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--lr", type=float, default=1.41e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--last-layers", type=int, default=0, help="0: all layers")
    parser.add_argument("--targets", default="q_proj,v_proj", help="by comma, or all-linear")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatch", type=int, default=4)
    parser.add_argument("--tokens", type=int, nargs=2, default=(20, 30))
    given = parser.parse_args()
    if given.last_layers and given.targets == ALL_LINEAR:
        parser.error("--last-layers: PEFT wants names of modules with it; give them by --targets")
    return given


def base_config(path: str) -> Any:
    """The configuration of a base, as the old Transformers of the peer has to be told it.

    Newer ones write the base of rotary positions below `rope_parameters`, which old ones do not
    read: they would take their default, and the model would be another one.

    Raises:
        SystemExit: rotary positions that are scaled.
    """
    config = AutoConfig.from_pretrained(path)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise SystemExit(f"{path}: got rope_parameters {rope}; want those of type default")
    if "rope_theta" in rope:
        config.rope_theta = rope["rope_theta"]
    return config


def policy(path: str, last_layers: int, targets: str = "q_proj,v_proj") -> Any:
    """The base with a fresh LoRA (rank 16, alpha 32) and TRL's value head.

    Args:
        path: folder of the base.
        last_layers: how many layers from the end get adapters; 0 for all.
        targets: names of modules by comma, or all-linear.
    """
    base = AutoModelForCausalLM.from_pretrained(path, config=base_config(path)).float()
    depth = base.config.num_hidden_layers
    layers = {"layers_to_transform": list(range(depth - last_layers, depth))} if last_layers else {}
    modules = targets if targets == ALL_LINEAR else targets.split(",")
    lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules=modules, **layers)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(get_peft_model(base, lora))
    model.is_peft_model = True
    return model


def generate(trainer: PPOTrainer, queries: list[torch.Tensor], longest: int) -> list[torch.Tensor]:
    """Sampled responses of at most `longest` tokens; an empty one becomes the end token."""
    tokenizer = trainer.tokenizer
    responses = trainer.generate(
        queries,
        batch_size=len(queries),
        return_prompt=False,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=longest,
    )
    end = torch.tensor([tokenizer.eos_token_id])
    return [one if len(one) else end for one in responses]


def train(given: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """TRL's loop over the prompts of the file.

    Args:
        given: the command line.

    Returns:
        The model; and why it stopped, how many samples were scored, and numbers by iteration.
    """
    iterations = json.loads(Path(given.prompts).read_text(encoding="utf-8"))
    reward = CivilLogit(given.reward, given.civil)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given.model)
    tokenizer.padding_side = "left"
    config = PPOConfig(
        batch_size=len(iterations[0]),
        mini_batch_size=given.minibatch,
        ppo_epochs=given.epochs,
        learning_rate=given.lr,
        seed=given.seed,
    )
    model = policy(given.model, given.last_layers, given.targets)
    trainer = PPOTrainer(config, model, ref_model=None, tokenizer=tokenizer)
    random.seed(given.seed)
    torch.manual_seed(given.seed)
    history: list[dict[str, float]] = []
    stopped, scored = "iterations", 0
    for prompts in iterations:
        queries = [torch.tensor(one["ids"]) for one in prompts]
        responses = generate(trainer, queries, random.randint(*given.tokens))
        scores = reward([tokenizer.decode(one, skip_special_tokens=True) for one in responses])
        scored += len(scores)
        stats = trainer.step(queries, responses, list(scores))
        row = {
            "score": float(scores.mean()),
            "ref_kl": float(stats["objective/kl"]),
            "response_tokens": sum(map(len, responses)) / len(responses),
        }
        history.append(row)
        weights = (p for p in model.parameters() if p.requires_grad)
        finite = all(map(math.isfinite, row.values()))
        if not (finite and all(torch.isfinite(p).all() for p in weights)):
            stopped = f"not finite at iteration {len(history)}"
            break
    return model, {"stopped": stopped, "scored_samples": scored, "history": history}


def main() -> None:
    """Train, save, write the summary."""
    given, start = arguments(), time.perf_counter()
    torch.set_num_threads(1)
    random.seed(given.seed)
    torch.manual_seed(given.seed)
    model, facts = train(given)
    out = Path(given.out)
    model.pretrained_model.save_pretrained(out / "adapter")
    summary = {
        "algorithm": "trl-0.11.4 ppo",
        "learning_rate": given.lr,
        "seed": given.seed,
        "last_layers": given.last_layers,
        "targets": given.targets,
        "iterations": len(facts["history"]),
        **facts,
        "seconds": {"total": time.perf_counter() - start, "cpu": time.process_time()},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
