"""Adapters as PEFT writes them, on tiny models, and what a policy makes of them."""

import torch
from peft import (
    LoraConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, Qwen2Config, Qwen2ForCausalLM

from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.types import Sampling
from tests.tiny import tiny_backbone, tiny_prompts, tiny_responses

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
PLAIN = Sampling()
TARGETS = {"llama": ["q_proj", "v_proj"], "qwen2": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
TARGETS |= {"t5": ["q", "v"]}
LORA = {
    "plain": {},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_rslora": {"init_lora_weights": "pissa", "use_rslora": True},
    "mica": {"init_lora_weights": "mica"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "dropout": {"lora_dropout": 0.4},
}
LORA_ON_LINEAR = {
    "olora": {"init_lora_weights": "olora"},
    "pissa_dora": {"init_lora_weights": "pissa", "use_dora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "use_rslora": True,
        "rank_pattern": {"0.self_attn.q_proj": 3},
        "alpha_pattern": {"v_proj": 9},
    },
    "pissa_patterns": {"init_lora_weights": "pissa", "rank_pattern": {"v_proj": 3}},
    "bias": {"lora_bias": True},
    "regex": {"target_modules": r".*\.[12]\..*(gate|down)_proj"},
    "excluded": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["k_proj"]},
    "upper": {"layers_to_transform": [2]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "head_alone": {"target_modules": ["lm_head"]},
    "pissa_head": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "pissa"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "whole_head": {"modules_to_save": ["lm_head"]},
    "whole_embedding": {"modules_to_save": ["embed_tokens"], "layers_to_transform": [2]},
    "whole_norm": {"modules_to_save": ["norm"], "layers_to_transform": [2]},
    "norm_below": {"modules_to_save": ["0.input_layernorm"], "layers_to_transform": [2]},
    "tokens": {"trainable_token_indices": [5, 6], "layers_to_transform": [2]},
    "blocks": {
        "use_bdlora": {
            "nblocks": 2,
            "target_modules_bd_a": ["q_proj"],
            "target_modules_bd_b": ["v_proj"],
        }
    },
}
CASES = [(architecture, name) for architecture in ("llama", "gpt2", "t5") for name in LORA]
CASES += [("llama", name) for name in LORA_ON_LINEAR if name != "bias"]
CASES += [("t5", "dora"), ("t5", "olora"), ("qwen2", "bias"), ("qwen2", "pissa")]
OTHER_KINDS = {
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 8},
    "GRALORA": {"r": 2, "gralora_k": 2},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 2},
    "OFT": {"r": 0, "oft_block_size": 4},
    "PSOFT": {"r": 2},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 1},
    "TRAINABLE_TOKENS": {"token_indices": [*range(3, 30)], "target_modules": ["embed_tokens"]},
    "VBLORA": {"vector_length": 4, "num_vectors": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 8},
}
"""What the kinds want beside their targets; the others need nothing."""


def backbone_of(architecture):
    if architecture != "qwen2":
        return tiny_backbone(architecture)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "vocab_size": 40}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **tokens))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def base_of(bases, architecture):
    auto = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
    return auto.from_pretrained(bases / architecture, dtype=torch.float32)


def lora(architecture, name):
    task = "SEQ_2_SEQ_LM" if architecture == "t5" else "CAUSAL_LM"
    options = {"target_modules": TARGETS[architecture], "fan_in_fan_out": architecture == "gpt2"}
    return LoraConfig(task_type=task, r=2, **{**options, **{**LORA, **LORA_ON_LINEAR}[name]})


def write(model, config, folder, *, trained=True):
    """An adapter with random weights, as after some training."""
    torch.manual_seed(3)
    peft = get_peft_model(model, config)
    if trained:
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    peft.save_pretrained(folder)
    return str(folder)


def load(bases, architecture, adapter, **changes):
    path = str(bases / architecture)
    return load_policy(BackbonePlan(path=path, adapter=adapter, device="cpu", **changes), ADAPTER)


def batch_for(policy):
    prompts, (ids, mask) = tiny_prompts(policy, [5, 4]), tiny_responses([3, 6])
    return prompts.query_ids, prompts.query_mask, ids, mask, PLAIN


@torch.no_grad()
def logprobs(policy, *frozen):
    return policy.respond(*batch_for(policy), *frozen).logprobs


def ref_logprobs(policy, *frozen):
    with policy.reference():
        return policy.respond(*batch_for(policy), *frozen).logprobs


@torch.no_grad()
def logits_of(model):
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 4, 9]])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[0, 9, 10, 11]])
    return model.eval()(**inputs).logits


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
