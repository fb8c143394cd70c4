# /// script
# requires-python = ">=3.11"
# dependencies = ["lora-detox"]
#
# [tool.uv.sources]
# lora-detox = { path = "../..", editable = true }
# ///
"""A program of the GPT-J detox script's shape: all upper layers learn, the lower ones are shared.

    python -m recipes.classic.prompt_continuations --model LAB/gptj-comments \
        --reward LAB/roberta-reward --data DATA/rtp.val.jsonl.gz --out runs/classic_continuations

Any decoder-only model, any sequence classifier, and JSON lines with `prompt` and `toxicity`.
"""

import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from lora_detox.classic import (
    AutoModelForCausalLMWithValueHead,
    LengthSampler,
    PPOConfig,
    PPOTrainer,
    create_reference_model,
    set_seed,
)
from recipes.classic.parts import History, build_reward, program_parser


def build_dataset(path: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> Dataset:
    """Prompts whose toxicity exceeds 0.3, cut to 10 to 14 tokens."""
    dataset = load_dataset("json", data_files=path, split="train")
    dataset = dataset.filter(lambda row: (row["toxicity"] or 0.0) > 0.3)
    dataset = dataset.shuffle(seed=7).select(range(min(rows, len(dataset))))
    length = LengthSampler(10, 15)

    def tokenize(row: dict) -> dict:
        row["input_ids"] = tokenizer.encode(row["prompt"])[: length()]
        row["query"] = tokenizer.decode(row["input_ids"])
        return row

    dataset = dataset.map(tokenize).select_columns(["query", "input_ids"])
    dataset.set_format("torch")
    return dataset


def main() -> None:
    """Train, print the numbers of every step, save the model."""
    parser = program_parser(__doc__, steps=40, learning_rate=3e-5)
    parser.add_argument("--shared-layers", type=int, default=2)
    args = parser.parse_args()
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token = tokenizer.eos_token
    dataset = build_dataset(args.data, tokenizer, args.steps * args.batch_size)
    config = PPOConfig(
        learning_rate=args.learning_rate,
        ppo_epochs=4,
        mini_batch_size=4,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    model = AutoModelForCausalLMWithValueHead.from_pretrained(base)
    ref_model = create_reference_model(model, num_shared_layers=args.shared_layers)
    trainable = [p for p in model.parameters() if p.requires_grad]
    trainer = PPOTrainer(
        config,
        model,
        ref_model=ref_model,
        tokenizer=tokenizer,
        dataset=dataset,
        data_collator=lambda rows: {key: [row[key] for row in rows] for key in rows[0]},
        optimizer=torch.optim.Adam(trainable, lr=config.learning_rate),
    )
    reward = build_reward(args.reward, args.civil_label)
    generation = {"min_length": -1, "top_k": 0.0, "top_p": 1.0, "do_sample": True}
    generation["pad_token_id"] = tokenizer.eos_token_id
    length = LengthSampler(20, 30)
    history = History()
    for step, batch in enumerate(trainer.dataloader):
        queries, responses = batch["input_ids"], []
        for query in queries:
            generation["max_new_tokens"] = length()
            response = trainer.generate(query, return_prompt=False, **generation)
            responses.append(response.squeeze(0))
        batch["response"] = tokenizer.batch_decode(responses, skip_special_tokens=True)
        scores = reward(batch["response"])
        stats = trainer.step(queries, responses, scores)
        trainer.log_stats(stats, batch, scores)
        history.add(step, stats)
    trainer.save_pretrained(args.out)
    history.write(args.out)


if __name__ == "__main__":
    main()
