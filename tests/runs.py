"""A finished run folder on a tiny model, written in a second instead of trained in a minute."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from lora_detox.settings import settings_yaml

SMOKE = [
    "debug=smoke",
    "threads=1",
    "evaluation.test_prompts=8",
    "generation.response_tokens=[4,8]",
    "data.limit=60",
]
"""A whole run in seconds."""
TASKS = {"gptj": "gptj_continuation", "t5": "flan_summary"}
TARGETS = {"gptj": ["q_proj", "v_proj"], "t5": ["q", "v"]}


def write_run(folder: Path, architecture: str = "gptj", base: str | None = None) -> Path:
    """A run whose adapter is random; `base` replaces the id that the files name as its base."""
    model_folder = write_tiny_policy(embedded_path(architecture), folder)
    encoder_decoder = architecture == "t5"
    auto = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    lora = LoraConfig(
        r=2,
        target_modules=TARGETS[architecture],
        task_type="SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
    )
    model = get_peft_model(auto.from_pretrained(model_folder, dtype=torch.float32), lora)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.peft_config["default"].base_model_name_or_path = base or str(model_folder)
    model.save_pretrained(folder / "adapter")
    path = f"policy.path={base or model_folder}"
    settings = api.compose_settings(
        [f"task={TASKS[architecture]}", "policy=local", path], folder / "nowhere"
    )
    (folder / "config.yaml").write_text(settings_yaml(settings))
    numbers = {"toxicity": {"mean": 0.4, "std": 0.1, "n": 8}, "distinct_2": 0.9}
    after = {**numbers, "toxicity": {"mean": 0.2, "std": 0.1, "n": 8}}
    summary = {
        "schema": 1,
        "task": settings.task.name,
        "policy": settings.policy.path,
        "algorithm": "ppo",
        "seed": 0,
        "before": numbers,
        "after": after,
        "change": {
            "toxicity": {"mean": -0.2, "ci95": [-0.3, -0.1]},
            "distinct_2": {"mean": 0.0, "ci95": [-0.1, 0.1]},
        },
        "ref_kl": 1.5,
        "scorers": {"reward": "embedded:reward@abc", "judge": "embedded:judge@def"},
        "parameters": {"trainable": 1234, "total": 56789, "base_unchanged": True},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
