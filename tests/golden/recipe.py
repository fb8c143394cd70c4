"""The tiny models and batches of the golden numbers, built alike in both environments.

Needs nothing of this package, as the peer's Python imports it too.
Weights are drawn by parameter name, so neither initialisation nor order matters.
"""

import zlib

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

VOCABULARY = 40
FAMILIES = ("gpt2", "t5")
PENALTIES = ("kl", "abs", "mse", "full")
SEED = 3
SETTINGS = {
    "batch_size": 4,
    "mini_batch_size": 2,
    "ppo_epochs": 4,
    "gradient_accumulation_steps": 1,
    "init_kl_coef": 0.3,
    "gamma": 0.97,
    "lam": 0.9,
    "vf_coef": 0.4,
    "cliprange": 0.1,
    "cliprange_value": 0.15,
}
SGD = 0.05
"""Learning rate of the optimizer whose steps are compared; Adam would amplify rounding."""


def build(family):
    """A tiny model; T5 has its own output matrix and unscaled outputs, as FLAN-T5."""
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=1,
        )
        model = GPT2LMHeadModel(config)
    else:
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            eos_token_id=1,
            pad_token_id=0,
        )
        model = T5ForConditionalGeneration(config)
        model.lm_head = nn.Linear(16, VOCABULARY, bias=False)
    fill(model, "policy")
    return model.eval()


def adapt(model):
    """A LoRA adapter that already changes the model."""
    t5 = model.config.is_encoder_decoder
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=2,
            lora_alpha=4,
            target_modules=["q", "v"] if t5 else ["c_attn"],
            task_type="SEQ_2_SEQ_LM" if t5 else "CAUSAL_LM",
            fan_in_fan_out=not t5,
        ),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    nudge(adapted, "adapter", only="lora_")
    return adapted


def fill(module, salt, scale=0.25):
    """Replace every parameter by numbers that depend on its name alone."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            random = np.random.RandomState(zlib.crc32(f"{salt}/{name}".encode()) % 2**31)
            numbers = random.standard_normal(tuple(parameter.shape)).astype(np.float32) * scale
            if parameter.dim() == 1 and name.endswith("weight"):  # of a normalisation
                numbers += 1
            parameter.copy_(torch.from_numpy(numbers))


def nudge(module, salt, scale=0.1, only=""):
    """Add numbers that depend on the name alone, so that policy and reference differ."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only not in name:
                continue
            random = np.random.RandomState(zlib.crc32(f"{salt}/{name}".encode()) % 2**31)
            numbers = random.standard_normal(tuple(parameter.shape)).astype(np.float32) * scale
            parameter.add_(torch.from_numpy(numbers))


def batch(family, lengths=(4, 3, 6, 5), query_lengths=(5, 3, 4, 7)):
    """Queries, responses and scores; a T5 response begins with the start token, as `generate`."""
    random = np.random.RandomState(11)
    queries = [torch.tensor(random.randint(3, VOCABULARY, n)) for n in query_lengths]
    responses = []
    for n in lengths:
        tokens = [*random.randint(3, VOCABULARY, n - 1).tolist(), 1]
        responses.append(torch.tensor(([0] if family == "t5" else []) + tokens))
    scores = [torch.tensor(x) for x in (1.5, -0.5, 0.25, 2.0)]
    return queries, responses, scores


def whole(model):
    """Every parameter as one long vector, by sorted name."""
    return torch.cat([p.detach().flatten() for _, p in sorted(model.named_parameters())])


def digest(before, after):
    """Size and some entries of a change of weights."""
    change = (after - before).double()
    some = torch.linspace(0, len(change) - 1, 40).long()
    return {"norm": float(change.norm()), "sum": float(change.sum()), "some": change[some].tolist()}
