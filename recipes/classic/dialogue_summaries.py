# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""A program of the FLAN-T5 detox lab's shape: LoRA on a summarizer, a reward per summary, PPO.

    python -m recipes.classic.dialogue_summaries --model LAB/t5-summary \
        --reward LAB/roberta-reward --data DATA/toxic_turn.train.jsonl.gz --out runs/classic

Any T5, FLAN-T5 or BART with a tokenizer, any sequence classifier, and JSON lines with `dialogue`.
"""

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSeq2SeqLM,
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
from recipes.classic.parts import History, build_reward, program_parser

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


def main() -> None:
    """Train, print the numbers of every step, save adapter and value head."""
    parser = program_parser(__doc__, steps=24, learning_rate=1e-3)
    args = parser.parse_args()
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
    history = History()
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
        history.add(step, stats)
    trainer.save_pretrained(args.out)
    history.write(args.out)


if __name__ == "__main__":
    main()
