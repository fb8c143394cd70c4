"""Prompts and responses that do not fit the model are refused before any weight loads."""

import json

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from lora_detox import api
from lora_detox.api import compose_settings
from lora_detox.embedded import embedded_path
from lora_detox.errors import SettingsError
from lora_detox.run import build
from lora_detox.stages import evaluate, plan

POSITIONS = 64
SHORT, LONG = "you never listen", "the weather is bad and my neighbour never listens to me " * 12


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """The message of a stage on a GPT-2 of 64 positions; None where it goes on to load weights."""
    monkeypatch.chdir(tmp_path)
    miniature = AutoTokenizer.from_pretrained(embedded_path("gptj"))
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": POSITIONS}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    rows = len(miniature)
    GPT2LMHeadModel(GPT2Config(vocab_size=rows, **sizes, **ids)).save_pretrained("gpt2")

    def no_weights(*_, **__):
        raise InterruptedError

    for module, name in ((build, "load_scorers"), (evaluate, "load_scorers")):
        monkeypatch.setattr(module, name, no_weights)
    monkeypatch.setattr(plan, "predict", no_weights)

    def run(stage, *overrides, prompts=(SHORT,), tokens=()):
        tokenizer = AutoTokenizer.from_pretrained(embedded_path("gptj"))
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained("gpt2")
        lines = [
            {"prompt": f"{place}: {prompts[place % len(prompts)]}", "answer": LONG}
            for place in range(60)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        given = [f"stage={stage}", "task=gptj_continuation", "policy=local", "policy.path=gpt2"]
        given += ["data=local", "data.path=rows.jsonl", "data.cache=false", *overrides]
        settings = compose_settings(given, tmp_path / "run")
        try:
            api.run_stage(settings)
        except InterruptedError:
            return None
        except SettingsError as error:
            return str(error)
        raise AssertionError("neither refused nor loaded")

    return run


@pytest.mark.parametrize(
    ("stage", "keys", "message"),
    [
        ("detox", [], "data.max_query_tokens to 35 or generation.response_tokens"),
        ("evaluate", [], "data.max_query_tokens to 35 or evaluation.new_tokens"),
        ("evaluate", ["evaluation.new_tokens=50"], "data.max_query_tokens to 15 or evaluation."),
        ("plan", ["plan.query_tokens=60"], "plan.query_tokens to 35 or generation."),
        ("plan", [], "data.max_query_tokens to 35 or generation.response_tokens"),
        ("detox", ["generation.response_tokens=[70,70]"], "lower generation.response_tokens"),
        ("detox", ["algorithm=trl_grpo", "evaluation.test_prompts=16"], "max_query_tokens to 3"),
        ("sft", ["data.max_query_tokens=30"], "lower sft.max_response_tokens"),
    ],
)
def test_what_is_too_long_is_refused_with_the_key_to_lower(refuse, stage, keys, message):
    prompts = (SHORT,) if stage == "sft" else (LONG, SHORT)
    fields = ["data.fields.references=answer"] if stage == "sft" else []
    refused = refuse(stage, *keys, *fields, prompts=prompts)
    assert message in refused
    assert "this gpt2 model has 64 positions (n_positions" in refused


@pytest.mark.parametrize("stage", ["detox", "evaluate", "plan"])
def test_what_fits_goes_on_although_the_window_is_wider(refuse, stage):
    """Real prompts count, not the 512 tokens that the window would allow."""
    assert refuse(stage) is None
    assert refuse(stage, "data.max_query_tokens=35", prompts=(LONG,)) is None


def test_one_long_training_prompt_is_found_where_the_run_reads_it(refuse):
    prompts = (LONG, *[SHORT] * 59)
    small = ["algorithm.rollout_batch_size=60", "algorithm.minibatch_size=60"]
    small += ["algorithm.microbatch_size=60", "algorithm.iterations=1", "budget=off"]
    assert "64 positions" in refuse("detox", *small, prompts=prompts)


def test_sft_fits_when_both_sides_are_lowered(refuse):
    keys = ["data.fields.references=answer", "data.max_query_tokens=30"]
    assert refuse("sft", *keys, "sft.max_response_tokens=34") is None
    assert "lower sft" in refuse("sft", *keys, "sft.max_response_tokens=64")


def test_a_token_without_a_row_is_refused_where_a_prompt_holds_it(refuse):
    assert refuse("detox", tokens=["<odd>"]) is None
    for stage in ("detox", "evaluate"):
        message = refuse(stage, tokens=["<odd>"], prompts=(SHORT, "so <odd> it is"))
        assert message.startswith("policy.path: the tokenizer gives token '<odd>' the id ")
        assert "resize_token_embeddings" in message
