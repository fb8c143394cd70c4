"""A random model of a few thousand weights in the shape of a miniature, for debug=smoke."""

import shutil
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)

from lora_detox.errors import SettingsError
from lora_detox.run_lock import RUN_FILES

_FOLDER = "tiny_model"
_T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
}
_GPTJ = {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4}


def write_tiny_policy(miniature: Path, run_dir: Path, tokens: int = 0) -> Path:
    """Write a tiny random model with the miniature's tokenizer into a run directory.

    Args:
        miniature: folder of the embedded model whose class and vocabulary are taken.
        run_dir: where `tiny_model/` is made.
        tokens: most tokens of a prompt and its response together, which it gets positions for.

    Returns:
        The folder, loadable like any other model.

    Raises:
        SettingsError: a folder of that name is there that no run made.
    """
    folder = run_dir / _FOLDER
    if folder.exists() and not any((run_dir / name).exists() for name in RUN_FILES):
        raise SettingsError(
            f"hydra.run.dir: {run_dir} holds a folder {_FOLDER}, into which debug.tiny_model=true "
            "would write; name another folder"
        )
    config = AutoConfig.from_pretrained(miniature)
    for name, value in (_T5 if config.is_encoder_decoder else _GPTJ).items():
        setattr(config, name, value)
    if not config.is_encoder_decoder:
        config.n_positions = max(config.n_positions, tokens)
    torch.manual_seed(0)
    model: PreTrainedModel
    if config.is_encoder_decoder:
        model = AutoModelForSeq2SeqLM.from_config(config)
        # Transformers ties a T5 built from a configuration; FLAN-T5 has its own output matrix.
        model.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(miniature).save_pretrained(folder)
    return folder


def has_tiny_policy(run_dir: Path) -> bool:
    """Whether a folder of the name is there, whoever made it."""
    return (run_dir / _FOLDER).exists()


def remove_tiny_policy(run_dir: Path) -> None:
    """Leave nothing of a run that was refused before it began, and that made the folder."""
    if not (run_dir / "config.yaml").exists():
        shutil.rmtree(run_dir / _FOLDER, ignore_errors=True)
