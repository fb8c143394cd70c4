"""A program of the FLAN-T5 detox lab's shape: LoRA on a summarizer, a reward per summary, PPO.

    python recipes/classic/dialogue_summaries.py --model LAB/t5-dialogue \
        --reward LAB/roberta-reward --data DATA/toxic_turn.train.jsonl.gz --out runs/classic

Any T5, FLAN-T5 or BART with a tokenizer, any sequence classifier, and JSON lines with `dialogue`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from lora_detox.classic import (
    AutoModelForSeq2SeqLMWithValueHead,
    LengthSampler,
    PPOConfig,
    PPOTrainer,
    create_reference_model,
    set_seed,
)

TEMPLATE = "Summarize the following conversation.\n\n{}\n\nSummary:\n"


def build_dataset(
    path: str, tokenizer: PreTrainedTokenizerBase, rows: int, characters: tuple[int, int]
) -> Dataset:
    """Dialogues of a middling length inside an instruction, as text and as ids."""
    dataset = load_dataset("json", data_files=path, split="train")
    low, high = characters
    dataset = dataset.filter(lambda row: low < len(row["dialogue"]) <= high)
    dataset = dataset.select(range(min(rows, len(dataset))))

    def tokenize(row: dict) -> dict:
        row["query"] = TEMPLATE.format(row["dialogue"])
        row["input_ids"] = tokenizer(row["query"], truncation=True, max_length=400)["input_ids"]
        return row

    dataset = dataset.map(tokenize).select_columns(["query", "input_ids"])
    dataset.set_format("torch")
    return dataset


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


def build_policy(path: str) -> AutoModelForSeq2SeqLMWithValueHead:
    """The summarizer with a fresh adapter and a value head; 32 is the lab's rank."""
    lora = LoraConfig(
        r=32,
        lora_alpha=32,
        target_modules=["q", "v"],
        lora_dropout=0.05,
        task_type=TaskType.SEQ_2_SEQ_LM,
    )
    base = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)  # not the file's own
    peft_model = get_peft_model(base, lora)
    return AutoModelForSeq2SeqLMWithValueHead.from_pretrained(peft_model, is_trainable=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder or hub id of the summarizer")
    parser.add_argument("--reward", required=True, help="folder or hub id of the classifier")
    parser.add_argument("--civil-label", default="nothate", help="label that is rewarded")
    parser.add_argument("--data", required=True, help="JSON lines with a `dialogue`")
    parser.add_argument("--out", required=True, help="folder for the adapter and metrics.json")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train, print the numbers of every step, save adapter and value head."""
    args = arguments()
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    dataset = build_dataset(args.data, tokenizer, args.steps * args.batch_size, (200, 1000))
    reward = build_reward(args.reward, args.civil_label)
    model = build_policy(args.model)
    config = PPOConfig(
        learning_rate=args.learning_rate,
        ppo_epochs=4,
        mini_batch_size=4,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    trainer = PPOTrainer(
        config=config,
        model=model,
        ref_model=create_reference_model(model),
        tokenizer=tokenizer,
        dataset=dataset,
        data_collator=lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
    )
    generation = {"min_length": -1, "top_k": 0.0, "top_p": 1.0, "do_sample": True}
    length = LengthSampler(30, 50)
    history = []
    for step, batch in enumerate(trainer.dataloader):
        queries, summaries = batch["input_ids"], []
        for query in queries:
            generation["max_new_tokens"] = length()
            summary = trainer.generate(query, **generation)
            summaries.append(summary.squeeze()[1:])  # the start token is no word of the summary
        batch["response"] = tokenizer.batch_decode(summaries, skip_special_tokens=True)
        scores = reward(batch["response"])
        stats = trainer.step(queries, summaries, scores)
        trainer.log_stats(stats, batch, scores)
        history.append({"step": step, "reward": stats["ppo/mean_scores"]} | chosen(stats))
        print(json.dumps(history[-1]), flush=True)
    trainer.save_pretrained(args.out)
    (Path(args.out) / "metrics.json").write_text(json.dumps(history, indent=1) + "\n")


def chosen(stats: dict) -> dict:
    """The numbers that tell whether a step was sound."""
    names = {
        "kl": "objective/kl",
        "kl_coef": "objective/kl_coef",
        "clipped": "ppo/policy/clipfrac",
        "tokens": "tokens/responses_len_mean",
        "seconds": "time/ppo/total",
    }
    return {short: round(stats[name], 4) for short, name in names.items()}


if __name__ == "__main__":
    main()
