"""Tiny random models of every architecture, built from configurations, offline."""

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lora_detox.policy.adapter import AdapterPlan, lora_config
from lora_detox.policy.families import family_of
from lora_detox.policy.policy import LoraPolicy
from lora_detox.types import PromptBatch

VOCABULARY = 40
ARCHITECTURES = ("t5", "gptj", "gpt_neo", "gpt2", "llama")
MORE_ARCHITECTURES = ("bart", "opt", "bloom", "gpt_neox", "granite", "gemma2")
"""Further ones, for the tests of alignment alone, so that the others stay quick."""
ENCODER_DECODER, DECODER_ONLY = "t5", "gptj"
_TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(VOCABULARY)}
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {w: i for w, i in words.items() if i > 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def tiny_backbone(architecture: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    if architecture == "t5":
        model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=VOCABULARY,
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_layers=3,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                dropout_rate=0.0,
                decoder_start_token_id=0,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
        model.lm_head = nn.Linear(16, VOCABULARY, bias=False)  # untied, as FLAN-T5
    elif architecture == "gptj":
        model = GPTJForCausalLM(
            GPTJConfig(
                n_embd=16,
                n_layer=3,
                n_head=2,
                rotary_dim=4,
                n_positions=64,
                attn_pdrop=0.0,
                embd_pdrop=0.0,
                resid_pdrop=0.0,
                **_TOKENS,
            )
        )
    elif architecture == "gpt_neo":
        model = GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=16,
                num_layers=4,
                num_heads=2,
                intermediate_size=24,
                attention_types=[[["global", "local"], 2]],
                window_size=4,
                max_position_embeddings=64,
                embed_dropout=0.0,
                resid_dropout=0.0,
                attention_dropout=0.0,
                **_TOKENS,
            )
        )
    elif architecture == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                n_embd=16,
                n_layer=3,
                n_head=2,
                n_positions=64,
                attn_pdrop=0.0,
                embd_pdrop=0.0,
                resid_pdrop=0.0,
                **_TOKENS,
            )
        )
    elif architecture in MORE_ARCHITECTURES:
        model = _another_backbone(architecture)
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=24,
                max_position_embeddings=64,
                **_TOKENS,
            )
        )
    with torch.no_grad():  # spread the random distributions, so that errors show
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def _another_backbone(architecture: str) -> PreTrainedModel:
    if architecture in ("granite", "gemma2"):  # logits are scaled, or capped
        kind = GraniteConfig if architecture == "granite" else Gemma2Config
        bent = {"logits_scaling": 8.0} if architecture == "granite" else {"head_dim": 8}
        bent |= {} if architecture == "granite" else {"final_logit_softcapping": 2.0}
        return AutoModelForCausalLM.from_config(
            kind(
                hidden_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=24,
                max_position_embeddings=64,
                **bent,
                **_TOKENS,
            )
        )
    if architecture == "bart":
        model = BartForConditionalGeneration(
            BartConfig(
                d_model=16,
                encoder_layers=2,
                decoder_layers=3,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=24,
                decoder_ffn_dim=24,
                max_position_embeddings=64,
                scale_embedding=True,
                forced_eos_token_id=None,
                dropout=0.0,
                decoder_start_token_id=0,
                **_TOKENS,
            )
        )
        model.final_logits_bias.normal_()  # 0 in a fresh model, where leaving it out shows nothing
        return model
    if architecture == "opt":  # as opt-350m: embeddings smaller than the states, norms after
        return OPTForCausalLM(
            OPTConfig(
                hidden_size=16,
                word_embed_proj_dim=8,
                num_hidden_layers=3,
                num_attention_heads=2,
                ffn_dim=24,
                max_position_embeddings=64,
                do_layer_norm_before=False,
                dropout=0.0,
                **_TOKENS,
            )
        )
    if architecture == "bloom":
        return BloomForCausalLM(
            BloomConfig(
                hidden_size=16,
                n_layer=3,
                n_head=2,
                hidden_dropout=0.0,
                attention_dropout=0.0,
                **_TOKENS,
            )
        )
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=64,
            rotary_pct=0.5,
            **_TOKENS,
        )
    )


def tiny_policy(
    architecture: str,
    *,
    moved: bool = True,
    seed: int = 0,
    with_value_head: bool = True,
    **adapter,
) -> LoraPolicy:
    """A policy; `moved` gives adapter and value head random weights, as after some training."""
    backbone = tiny_backbone(architecture, seed)
    plan = AdapterPlan(**({"rank": 2, "alpha": 4.0} | adapter))
    model = get_peft_model(backbone, lora_config(plan, backbone.config))
    family = family_of(backbone.config)
    policy = LoraPolicy(model, tiny_tokenizer(), family, with_value_head=with_value_head)
    if moved:
        move(policy, seed + 1)
    return policy


def move(policy: LoraPolicy, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def tiny_prompts(policy: LoraPolicy, lengths: list[int], seed: int = 0) -> PromptBatch:
    """Random prompts of given lengths, padded on the side of the policy's family."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        where = (
            slice(0, length)
            if policy.family.padding_side == "right"
            else slice(width - length, width)
        )
        ids[row, where] = torch.randint(3, VOCABULARY, (length,), generator=generator)
        mask[row, where] = True
    texts = [" ".join(f"w{i}" for i in r[m].tolist()) for r, m in zip(ids, mask, strict=True)]
    return PromptBatch(
        texts=texts,
        query_ids=ids,
        query_mask=mask,
        references=[[] for _ in lengths],
        row_ids=[str(i) for i in range(len(lengths))],
    )


def tiny_responses(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random response ids and masks; every response ends with end-of-sequence."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(3, VOCABULARY, (length - 1,), generator=generator)
        ids[row, length - 1] = 1
        mask[row, :length] = True
    return ids, mask
