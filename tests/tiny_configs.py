"""Configurations of a few thousand weights for every model type that the matrix names."""

from collections.abc import Callable
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 40
"""Tokens of `tests.tiny.tiny_tokenizer`."""
IDS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}

_SIZES: dict[str, Any] = IDS | {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dff", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 3),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 3),
    **dict.fromkeys(("encoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    **dict.fromkeys(("head_dim", "d_kv"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 64),
    "embedding_size": 16,
    "rotary_dim": 4,
    "sliding_window": 8,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim"), 8),
    "qk_rope_head_dim": 4,
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "dropout", "dropout_rate"), 0.3),
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), 0.3),
    **dict.fromkeys(("layerdrop", "encoder_layerdrop", "decoder_layerdrop"), 0.3),
    **dict.fromkeys(("router_jitter_noise", "input_jitter_noise", "jitter_noise"), 0.3),
    **dict.fromkeys(("attention_window", "block_size"), 8),
}
"""Values for the names that configurations use; each takes those that it knows."""
_LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_DECODER = {"is_decoder": True}
_MLA = {"num_key_value_heads": 4, "qk_rope_head_dim": 8, "head_dim": ...}
_OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [2], "head_dim": ..., **_MAMBA},
    "bert": _DECODER,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 2, "moe_top_k": 1},
    },
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "diffllama": {"attention_dropout": 0.0},
    "electra": _DECODER,
    "falcon_h1": {"mamba_d_ssm": 64, **_MAMBA},
    "gemma2": {"final_logit_softcapping": 2.0},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "global_head_dim": 8,
    },
    "gpt_neo": {
        "num_layers": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 4,
    },
    "granite": {
        "logits_scaling": 8.0,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.1,
    },
    "granitemoehybrid": {
        "layer_types": ["mamba", "mamba", "attention"],
        "shared_intermediate_size": 16,
        "logits_scaling": 4.0,
        **_MAMBA,
    },
    "jamba": {
        "attn_layer_period": 3,
        "attn_layer_offset": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
        "head_dim": ...,
    },
    "longt5": {"local_radius": 8},
    "m2m_100": {"decoder_start_token_id": 1},
    "mamba2": {
        "expand": 2,
        "num_heads": 8,
        "head_dim": 8,
        "state_size": 16,
        "n_groups": 2,
        "chunk_size": 8,
    },
    "qwen3_5_text": _LINEAR_ATTENTION,
    "qwen3_next": _LINEAR_ATTENTION,
    "roberta": _DECODER,
    "roformer": _DECODER,
    "seamless_m4t": {"decoder_start_token_id": 1},
    "xlm": {"emb_dim": 32, "n_layers": 3, "n_heads": 4},
    "xlm-roberta": _DECODER,
}
"""What single model types want beside the sizes or instead of them; `...` leaves one out."""


def tiny_config(model_type: str, **changes: Any) -> PretrainedConfig:
    """A configuration of about 32 numbers in a state and three layers.

    Args:
        model_type: as in a config.json.
        changes: to the values of this file; `...` leaves one out.
    """
    if model_type in _NESTED:
        return _NESTED[model_type]()
    kind = CONFIG_MAPPING[model_type]
    known = kind().to_dict()
    values = {name: value for name, value in _SIZES.items() if name in known} | IDS
    if known["is_encoder_decoder"]:
        values["decoder_start_token_id"] = 0
    values |= _OWN.get(model_type, {}) | changes
    return kind(**{name: value for name, value in values.items() if value is not ...})


def _gemma3() -> PretrainedConfig:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    text = tiny_config("gemma3_text").to_dict()
    return CONFIG_MAPPING["gemma3"](
        text_config=text, vision_config=vision, mm_tokens_per_image=4, **IDS
    )


def _bert_to_bert() -> PretrainedConfig:
    return CONFIG_MAPPING["encoder-decoder"].from_encoder_decoder_configs(
        tiny_config("bert", is_decoder=False),
        tiny_config("bert", add_cross_attention=True),
        decoder_start_token_id=0,
        **IDS,
    )


def _t5gemma() -> PretrainedConfig:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim")
    names += ("num_attention_heads", "num_key_value_heads", "sliding_window", *IDS)
    stack = {name: _SIZES[name] for name in names}
    return CONFIG_MAPPING["t5gemma"](
        encoder=stack,
        decoder=stack | {"cross_attention_hidden_size": 32},
        vocab_size=VOCABULARY,
        decoder_start_token_id=1,
        **IDS,
    )


_NESTED: dict[str, Callable[[], PretrainedConfig]] = {
    "gemma3": _gemma3,
    "encoder-decoder": _bert_to_bert,
    "t5gemma": _t5gemma,
}
