"""task.chat=true in every stage: the same ids, and responses that end where the template ends."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.builders.data import encode_prompts
from lora_detox.builders.examples import training_examples
from lora_detox.builders.rows import load_data
from lora_detox.embedded import embedded_path
from lora_detox.errors import DataError, SettingsError
from lora_detox.policy.preflight import BackbonePlan, read_config
from lora_detox.policy.tokenizer import load_tokenizer
from tests.runs import SMOKE
from tests.unit.test_chat import CHATML, chat_tokenizer, own_ids

KEYS = [
    "task=gptj_continuation",
    *SMOKE,
    "debug.tiny_model=false",
    "policy=local",
    "task.chat=true",
]
KEYS += ["data.query_tokens=null", "budget=off", "guard=off", "generation.response_tokens=[20,20]"]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """The miniature GPT-J with a chat template, whose likeliest word is the end of a message."""
    folder = tmp_path_factory.mktemp("chatty")
    tokenizer = chat_tokenizer(CHATML)
    model = AutoModelForCausalLM.from_pretrained(embedded_path("gptj"), dtype=torch.float32)
    torch.manual_seed(0)  # of the new rows, whose states decide how likely the end is
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.lm_head.bias[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 10.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings_of(folder, run, *more):
    return api.compose_settings([*KEYS, f"policy.path={folder}", *more], run)


def parts(folder, tmp_path, *more):
    settings = settings_of(folder, tmp_path / "unused", *more)
    plan = BackbonePlan(path=str(folder), chat=True, system=settings.task.system)
    tokenizer = load_tokenizer(plan, read_config(plan))
    return settings, load_data(settings), tokenizer


def test_all_prompts_are_user_messages(chatty, tmp_path):
    settings, data, tokenizer = parts(chatty, tmp_path, "task.system=Be kind.")
    encoded = encode_prompts(settings, data, tokenizer, encoder_decoder=False)
    prompts = {row.row_id: row.prompt for rows in (data.train, data.test) for row in rows}
    for batch in (encoded.test, encoded.train.batch(0)):
        for row_id, text, ids, mask in zip(
            batch.row_ids, batch.texts, batch.query_ids, batch.query_mask, strict=True
        ):
            assert text == prompts[row_id]
            assert ids[mask].tolist() == own_ids(tokenizer, text, "Be kind.")


def test_examples_of_sft_end_with_the_templates_end(chatty, tmp_path):
    settings, data, tokenizer = parts(chatty, tmp_path)
    rows = [replace(data.train[0], references=["so it is"]), replace(data.train[1], references=[])]
    (example,) = training_examples(rows, tokenizer, settings, encoder_decoder=False)
    prompt = own_ids(tokenizer, rows[0].prompt)
    target = tokenizer("so it is<|im_end|>", add_special_tokens=False)["input_ids"]
    assert example["input_ids"] == [*prompt, *target]
    assert example["completion_mask"] == [0] * len(prompt) + [1] * len(target)
    with pytest.raises(DataError, match=r"no row has one; .*`data.fields.references`"):
        training_examples(rows[1:], tokenizer, settings, encoder_decoder=False)


@pytest.mark.training
@pytest.mark.parametrize("algorithm", ["ppo", "best_of_n", "trl_grpo", "trl_dpo"])
def test_training_ends_responses_at_the_templates_end(chatty, tmp_path, algorithm):
    more = [] if algorithm == "ppo" else [f"algorithm={algorithm}", "algorithm.iterations=1"]
    more += [] if algorithm == "ppo" else ["algorithm.responses_per_prompt=4"]
    more += ["algorithm.trainer.least_gap=0"] if algorithm == "trl_dpo" else []
    settings = settings_of(chatty, tmp_path / "run", *more)
    api.run_stage(settings)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["before"]["response_tokens"] < 8
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    lengths = [row["response_tokens"] for row in rows if "response_tokens" in row]
    assert bool(lengths) == (algorithm in ("ppo", "trl_grpo"))  # those that sample while they train
    assert max(lengths, default=0) < 8
    samples = (tmp_path / "run" / "samples.jsonl").read_text()
    assert "<|im_" not in samples
    assert "assistant" not in samples


@pytest.mark.training
def test_evaluation_and_plan_read_the_same(chatty, tmp_path):
    settings = settings_of(chatty, tmp_path / "evaluate", "stage=evaluate")
    api.run_stage(settings)
    summary = json.loads((tmp_path / "evaluate" / "summary.json").read_text())
    (model,) = summary["models"]
    assert model["sets"]["in_distribution"]["response_tokens"] < 8
    api.run_stage(settings_of(chatty, tmp_path / "plan", "stage=plan", "plan.memory_gib=16"))


@pytest.mark.parametrize("stage", ["detox", "evaluate", "sft"])
def test_a_model_without_chat_template_is_refused(tmp_path, stage):
    settings = settings_of(embedded_path("gptj"), tmp_path / "run", f"stage={stage}")
    with pytest.raises(SettingsError, match=r"^task.chat: .*no chat template"):
        api.run_stage(settings)
    settings = settings_of(embedded_path("t5"), tmp_path / "run", f"stage={stage}")
    with pytest.raises(SettingsError, match=r"^task.chat: .*encoder-decoder"):
        api.run_stage(settings)


def test_a_system_message_wants_a_chat(tmp_path):
    with pytest.raises(SettingsError, match=r"^task.system: only task.chat=true reads it"):
        settings_of("x", tmp_path / "run", "task.chat=false", "task.system=Be kind.")
