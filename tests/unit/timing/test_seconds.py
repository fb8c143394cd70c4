"""stage=plan: seconds by phase, timed on a random model of fewer layers."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox.api import compose_settings, run
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.timing import predict as timing
from lora_detox.timing.predict import (
    Seconds,
    depths,
    evaluated_responses,
    faster,
    prefix_texts,
    refusal,
    rows_of_a_round,
)
from lora_detox.timing.shallow import depth_of, shallow_config, write_shallow
from lora_detox.types import PromptBatch

WIDTHS = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "vocab_size": 50},
    "bart": {
        "d_model": 16,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "vocab_size": 50,
    },
    "gptj": {"n_embd": 16, "n_head": 2, "rotary_dim": 4, "vocab_size": 50},
    "gpt2": {"n_embd": 16, "n_head": 2, "vocab_size": 50},
    "gpt_neo": {"hidden_size": 16, "num_heads": 2, "vocab_size": 50},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 50,
    },
    "qwen3": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 50,
    },
}
DEPTHS = {
    "t5": {"num_layers": 8, "num_decoder_layers": 8},
    "bart": {"encoder_layers": 12, "decoder_layers": 6},
    "gptj": {"n_layer": 28},
    "gpt2": {"n_layer": 12},
    "gpt_neo": {"num_layers": 12, "attention_types": [[["global", "local"], 6]]},
    "llama": {"num_hidden_layers": 30},
    "qwen3": {"num_hidden_layers": 28},
}


@pytest.mark.parametrize("kind", WIDTHS)
def test_a_shallow_model_of_each_kind_is_written_and_loads(kind, tmp_path):
    config = AutoConfig.for_model(kind, **WIDTHS[kind], **DEPTHS[kind])
    whole = max(v for v in DEPTHS[kind].values() if isinstance(v, int))
    assert depth_of(config) == whole
    written = write_shallow(tmp_path, config, 3, torch.float32, None)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert depth_of(model.config) == 3
    assert depth_of(config) == whole, "the configuration of the whole model is left as it is"
    assert written == sum(p.numel() * 4 for p in model.parameters())
    ids = torch.tensor([[3, 4, 5]])
    more = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
    assert model(input_ids=ids, **more).logits.isfinite().all()


def test_two_stacks_keep_their_ratio():
    config = AutoConfig.for_model("bart", **WIDTHS["bart"], **DEPTHS["bart"])
    shallow = shallow_config(config, 4)
    assert (shallow.encoder_layers, shallow.decoder_layers) == (4, 2)


@pytest.mark.parametrize(
    ("whole", "scope", "expected"),
    [
        (2, "all", (2,)),
        (4, "decoder", (4,)),
        (28, "all", (1, 8)),
        (12, "last_4", (5, 8)),
        (6, "last_5", (6,)),
    ],
)
def test_which_depths_are_timed(whole, scope, expected):
    assert depths(whole, scope) == expected


def test_phases_go_on_in_a_straight_line_and_scale_with_rows_and_epochs(monkeypatch, tmp_path):
    """What the timed rounds give is put together; what they would take is not measured here."""
    settings = compose_settings(
        [
            "stage=plan",
            "task=gptj_continuation",
            "policy=gpt2",
            "algorithm.rollout_batch_size=64",
            "algorithm.minibatch_size=16",
            "algorithm.ppo_epochs=3",
            "generation.batch_size=24",
            "algorithm.expert.prefix_credit_every=10",
            "generation.response_tokens=[20,30]",
        ],
        tmp_path,
    )
    assert rows_of_a_round(settings) == 32  # two minibatches hold what is written together
    times = {1: (1.0, 0.5, 2.0), 4: (1.6, 0.8, 3.5)}

    def timed(settings, plan, config, prompts, depth):
        assert len(prompts[0].texts) == 32
        return dict(zip(("generate", "reference", "update"), times[depth], strict=True))

    monkeypatch.setattr(timing, "_timed", timed)
    monkeypatch.setattr(timing, "classifier_seconds", lambda config, texts, *rest: 0.01 * texts)
    config = AutoConfig.for_model("gpt2", **WIDTHS["gpt2"], n_layer=12)
    ids = torch.ones(5, 7, dtype=torch.long)
    prompts = PromptBatch(
        texts=["a"] * 5,
        query_ids=ids,
        query_mask=ids.bool(),
        references=[[]] * 5,
        row_ids=list("abcde"),
    )
    plan = BackbonePlan(path="gpt2", dtype="float32")
    seconds = timing.predict_seconds(settings, plan, config, prompts, None)
    assert seconds.layers == (1, 4)
    assert seconds.phases["generate"] == pytest.approx(2 * (1.0 + 0.2 * 11))
    assert seconds.phases["reference"] == pytest.approx(2 * (0.5 + 0.1 * 11))
    assert seconds.phases["update"] == pytest.approx(2 * 3 * (2.0 + 0.5 * 11))
    prefixes = (10 + 2 + 20 + 2) / (30 + 2)
    assert prefix_texts(settings) == pytest.approx(prefixes)
    assert seconds.phases["score"] == pytest.approx(0.01 * 64 * (1 + prefixes))
    assert seconds.largest == "update"
    override, left, _ = faster(settings, seconds)
    assert override == "algorithm.ppo_epochs=1"
    assert left == pytest.approx(seconds.iteration - seconds.phases["update"] * 2 / 3)


@pytest.mark.parametrize(
    ("largest", "overrides", "expected"),
    [
        ("score", ["algorithm.expert.prefix_credit_every=2"], "prefix_credit_every=4"),
        ("generate", ["generation.response_tokens=[20,30]"], "response_tokens=[10,15]"),
        ("reference", ["algorithm.rollout_batch_size=32"], "rollout_batch_size=16"),
        ("update", ["algorithm.ppo_epochs=1"], "rollout_batch_size=16"),
    ],
)
def test_the_override_is_one_for_the_largest_cost(largest, overrides, expected, tmp_path):
    settings = compose_settings(["stage=plan", *overrides], tmp_path)
    phases = dict.fromkeys(("generate", "reference", "score", "update"), 1.0) | {largest: 10.0}
    seconds = Seconds(phases=phases, evaluations=0, iterations=1, layers=(1,), notes=())
    override, left, cost = faster(settings, seconds)
    assert override.endswith(expected)
    assert cost
    assert 3.0 < left < 13.0


def test_evaluations_count_start_way_and_both_test_sets(tmp_path):
    overrides = ["algorithm.iterations=10", "evaluation.every=4", "evaluation.test_prompts=7"]
    overrides += ["evaluation.validation_prompts=5", "evaluation.validation_samples=2"]
    settings = compose_settings(["stage=plan", *overrides], tmp_path)
    assert evaluated_responses(settings) == (1 + 3) * 10 + 2 * 7


@pytest.mark.parametrize(
    ("overrides", "device", "words"),
    [
        (["plan.seconds=false"], "cpu", "plan.seconds=false"),
        (["device=cpu"], "cuda", "plan.device=cuda is not here"),
        (["device=cpu", "task=gptj_continuation", "algorithm=trl_grpo"], "cpu", "has its own loop"),
    ],
)
def test_what_cannot_be_timed_says_why(overrides, device, words, tmp_path):
    settings = compose_settings(["stage=plan", *overrides], tmp_path)
    assert words in refusal(settings, device)


@pytest.mark.prediction
@pytest.mark.parametrize("task", ["flan_summary", "gptj_continuation"])
def test_the_plan_of_a_miniature_has_seconds_and_what_lowers_them(task, tmp_path, capsys):
    run(["stage=plan", f"task={task}", "threads=1"], tmp_path / "plan")
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    seconds = plan["seconds"]
    assert set(seconds["phases"]) == {"generate", "reference", "update", "score"}
    assert all(spent > 0 for spent in seconds["phases"].values())
    assert seconds["iteration"] == pytest.approx(sum(seconds["phases"].values()))
    assert seconds["run"] > seconds["iterations"] * seconds["iteration"]
    printed = capsys.readouterr().out
    assert "predicted iteration" in printed
    assert f"Largest cost: {seconds['largest']}. {seconds['faster']['override']} brings" in printed
