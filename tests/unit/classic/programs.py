"""Small old programs: a policy, a trainer, a rigged score."""

import warnings

import torch
from peft import LoraConfig, get_peft_model

from lora_detox.classic import (
    AutoModelForCausalLMWithValueHead,
    AutoModelForSeq2SeqLMWithValueHead,
    PPOConfig,
    PPOTrainer,
)
from tests.tiny import VOCABULARY, tiny_backbone, tiny_tokenizer

WRAPPERS = {"t5": AutoModelForSeq2SeqLMWithValueHead}
TARGETS = {"t5": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"], "gpt2": ["c_attn", "c_proj", "c_fc"]}
SAMPLE = {"do_sample": True, "top_k": 0.0, "top_p": 1.0, "min_length": -1, "max_new_tokens": 6}


def wrapper_of(architecture):
    return WRAPPERS.get(architecture, AutoModelForCausalLMWithValueHead)


def lora_config(architecture, rank=4, **options):
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=TARGETS.get(architecture, ["q_proj", "v_proj"]),
        task_type="SEQ_2_SEQ_LM" if architecture == "t5" else "CAUSAL_LM",
        fan_in_fan_out=architecture == "gpt2",
        **options,
    )


def policy(architecture="gpt2", *, lora=False, seed=0, **options):
    backbone = tiny_backbone(architecture, seed)
    torch.manual_seed(seed)
    if lora:
        backbone = get_peft_model(backbone, lora_config(architecture))
    return wrapper_of(architecture).from_pretrained(backbone, **options)


def quiet_trainer(model, *args, config=None, **options):
    names = ("ref_model", "dataset", "optimizer", "data_collator", "num_shared_layers")
    names += ("lr_scheduler", "strict_trl_masks", "tokenizer")
    own = {name: options.pop(name) for name in names if name in options}
    own.setdefault("tokenizer", tiny_tokenizer())
    config = config or PPOConfig(**({"batch_size": 4, "mini_batch_size": 2} | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PPOTrainer(config, model, *args, **own)


def some_queries(lengths=(4, 3, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(8, VOCABULARY, (n,), generator=generator) for n in lengths]


def some_responses(lengths=(5, 2, 6, 3), seed=1, start=()):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(8, VOCABULARY, (n - 1,), generator=generator).tolist() for n in lengths]
    return [torch.tensor([*start, *row, 1]) for row in rows]


def some_scores(count=4):
    return [torch.tensor(float(i % 3)) for i in range(count)]
