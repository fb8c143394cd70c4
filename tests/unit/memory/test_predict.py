"""stage=plan: parts, advice that is predicted again, and what it writes."""

import json

import pytest
from transformers import RobertaConfig

from lora_detox.api import compose_settings, run
from lora_detox.choices import Dtype, QuantizationType
from lora_detox.embedded import embedded_path
from lora_detox.errors import SettingsError
from lora_detox.memory.advice import advise, candidates, changed
from lora_detox.memory.predict import Machine, Prediction, predict, scorer_bytes
from lora_detox.policy.preflight import BackbonePlan, read_config
from lora_detox.stages.plan import longest_query, miniature_scorers, policy_config
from tests.encoders import write_encoder

pytestmark = pytest.mark.prediction

GIB = 2**30
CPU = Machine(device="cpu", available=8 * GIB, baseline=GIB // 2)
GPU = Machine(device="cuda", available=24 * GIB, baseline=GIB // 2)


@pytest.fixture
def compose(tmp_path):
    return lambda *overrides: compose_settings(["stage=plan", *overrides], tmp_path / "run")


def predicted(settings, machine=CPU, query=40, layers=None):
    """What a run takes; with `layers`, were its GPT-2 of that depth, which is counted sooner."""
    config, _ = policy_config(settings, settings.policy.path)
    if layers is not None:
        config.n_layer = layers
    return predict(settings, config, settings.policy.path, query, machine)


def test_an_encoder_is_counted_beside_the_classifiers(compose, tmp_path):
    base = ["task=gptj_continuation", "policy=gpt2", "algorithm=grpo"]
    bare = predicted(compose(*base), layers=2)
    folder = write_encoder(tmp_path / "encoder")
    plan = predicted(compose(*base, f"evaluation.encoder={folder}"), layers=2)
    stored = (folder / "model.safetensors").stat().st_size
    assert "encoder model" not in bare.stays
    assert 0.9 * stored < plan.stays["encoder model"] < 1.2 * stored
    assert plan.total >= bare.total


@pytest.mark.slow
def test_gpt_j_in_int8_knows_the_excluded_output_matrix(compose):
    settings = compose("task=gptj_continuation", "policy=gpt_j_6b", "quantization=int8")
    plan = predicted(settings, GPU, query=15)
    vocabulary, hidden, inner, layers = 50400, 4096, 16384, 28
    linear = layers * (4 * hidden * hidden + 2 * hidden * inner)
    assert plan.stays["backbone, int8"] == linear
    assert plan.stays["backbone, int8 scales"] == 4 * layers * (5 * hidden + inner)
    biases = vocabulary + layers * (inner + hidden + 2 * hidden) + 2 * hidden
    assert plan.stays["backbone, bfloat16"] == 2 * (2 * vocabulary * hidden + biases)
    adapter = layers * 16 * (4 * 2 * hidden + 2 * (hidden + inner))  # on all linear layers
    assert plan.stays["adapter"] == 4 * adapter
    assert plan.stays["AdamW moments"] == 2 * plan.stays["gradients"]
    assert plan.total < 12 * GIB


def test_states_that_a_run_may_go_back_to_are_counted(compose):
    base = ["task=gptj_continuation", "policy=gpt2", "algorithm=grpo"]  # without a value head
    name = "states to go back to"
    plain = predicted(compose(*base, "budget=off", "guard=off"), layers=2)
    adapter = plain.stays["adapter"]
    assert plain.stays[name] == adapter  # the start
    assert predicted(compose(*base, "guard=off"), layers=2).stays[name] == 2 * adapter
    assert predicted(compose(*base), layers=2).stays[name] == 5 * adapter
    started = predicted(compose(*base, "adapter.init=orthogonal"), layers=2).stays
    assert started["adapter to start from, frozen copy"] == adapter
    mean = predicted(compose(*base, "algorithm.average=0.9"), layers=2)
    assert mean.stays[name] == 7 * adapter


def test_t5_keeps_wo_out_of_int8(compose):
    base = ["policy=flan_t5_small", "quantization=int8", "policy.dtype=bfloat16"]
    plan = predicted(compose(*base))
    layers, width, inner, heads = 8, 512, 1024, 384
    attention = 3 * layers * 4 * width * heads  # encoder, decoder, cross
    assert plan.stays["backbone, int8"] == attention + 2 * layers * 2 * width * inner
    assert plan.phases["generate"]["whole copies of quantized weights"] == 0
    whole = predicted(compose(*base, "quantization.dequantize_for_decoding=always"))
    parts = whole.phases["generate"]
    assert parts["whole copies of quantized weights"] == 2 * plan.stays["backbone, int8"]
    norms = (2 * layers + 3 * layers + 2) * width
    dense = 2 * 32128 * width + 2 * layers * inner * width + norms + 2 * 32 * 6
    assert plan.stays["backbone, bfloat16"] == 2 * dense  # the output matrix is FLAN-T5's own


def test_the_total_is_what_stays_and_the_largest_phase():
    plan = Prediction(stays={"a": 5, "b": 1}, phases={"x": {"c": 2}, "y": {"d": 3, "e": 4}})
    assert (plan.peak_phase, plan.total) == ("y", 13)


def test_frozen_states_count_for_the_whole_rollout(compose):
    base = ["task=gptj_continuation", "policy=gpt2", "policy.dtype=float32"]
    plain = predicted(compose(*base), layers=4)
    upper = predicted(compose(*base, "adapter.scope=last_2"), layers=4)
    kept = "states below the adapter, whole rollout"
    assert kept not in plain.phases["update"]
    rows, tokens = 32, 40 + 30 - 1
    states = rows * tokens * 768 * 4
    assert upper.phases["update"][kept] == pytest.approx(states, rel=0.05)
    assert upper.phases["update"][kept] == upper.phases["reference"][kept]


@pytest.mark.parametrize(
    ("override", "phase"),
    [
        ("algorithm.microbatch_size=4", "update"),
        ("policy.gradient_checkpointing=true", "update"),
        ("policy.dtype=bfloat16", "update"),
        ("evaluation.batch_size=8", "generate"),
        ("reward.batch_size=2", "score"),
    ],
)
def test_what_is_said_to_save_memory_does(compose, override, phase):
    base = ["task=gptj_continuation", "policy=gpt2", "generation.batch_size=8", "judge=none"]
    base.append("policy.dtype=float32")
    before = predicted(compose(*base), layers=6)
    after = predicted(compose(*base, override), layers=6)
    assert sum(after.phases[phase].values()) < 0.8 * sum(before.phases[phase].values())


def test_advice_is_in_the_order_of_its_cost_and_predicted_again(compose):
    settings = compose("task=gptj_continuation", "policy=gpt2")
    seen = []

    def pretend(one):
        """Only bf16 and checkpointing help, by 3 and 1."""
        seen.append(one)
        total = 10
        total -= 3 * (one.policy.dtype is Dtype.bfloat16)
        total -= one.policy.gradient_checkpointing
        return Prediction(stays={"all": total}, phases={"update": {}})

    advice = advise(settings, pretend, available=6)
    assert [one.overrides for one in advice] == [
        ["policy.gradient_checkpointing=true"],
        ["policy.dtype=bfloat16"],
        ["policy.gradient_checkpointing=true", "policy.dtype=bfloat16"],
    ]
    assert [(one.total, one.fits) for one in advice] == [(9, False), (7, False), (6, True)]
    assert settings.policy.dtype is Dtype.auto  # only copies were changed
    enough = advise(settings, pretend, available=9)
    assert [one.fits for one in enough] == [True]  # stops at the first that does


def test_every_candidate_is_a_setting_that_composes(compose):
    settings = compose("task=gptj_continuation")
    for overrides, cost in candidates(settings):
        assert cost
        new = changed(settings, overrides)
        assert new != settings
    quantized = compose("task=gptj_continuation", "quantization=nf4")
    keys = {key for overrides, _ in candidates(quantized) for key, _ in overrides}
    assert not keys & {"quantization.type", "policy.dtype"}
    assert quantized.quantization.type is QuantizationType.nf4


def test_scorers_count_by_batch_and_by_dtype(compose):
    config = RobertaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    small, large = scorer_bytes(config, (4, 10), CPU), scorer_bytes(config, (16, 10), CPU)
    assert large[0] == small[0]
    assert large[1] == pytest.approx(4 * small[1], rel=0.1)
    assert scorer_bytes(config, (4, 10), GPU)[0] < 0.7 * small[0]


def test_queries_are_measured_where_the_data_is_here(compose):
    settings = compose("task=gptj_continuation")
    path = str(embedded_path("gptj"))
    config = read_config(BackbonePlan(path=path))
    query, notes = longest_query(settings, config, path, readable=True)
    assert 10 <= query <= 15  # data.query_tokens
    assert notes == []
    assert longest_query(compose("plan.query_tokens=77"), config, path, readable=False) == (77, [])
    missing = compose("task=gptj_continuation", "data=real_toxicity_prompts")
    query, notes = longest_query(missing, config, path, readable=True)
    assert query in (15, missing.data.max_query_tokens)
    assert "cannot be read" in notes[0]


def test_a_model_that_nobody_knows_is_an_error_that_says_what_to_do(compose):
    settings = compose("policy=local", "policy.path=nobody/nothing")
    with pytest.raises(SettingsError, match=r"policy.path: cannot read .*policy.shape="):
        policy_config(settings, settings.policy.path)


def test_a_machine_that_is_not_here_needs_its_memory(compose):
    with pytest.raises(SettingsError, match=r"plan\.memory_gib: got null"):
        compose("plan.device=cuda")
    with pytest.raises(SettingsError, match=r"plan\.device: got tpu"):
        compose("plan.device=tpu", "plan.memory_gib=1")


def test_the_stage_writes_its_plan_and_advice_that_fits(tmp_path, capsys):
    where = ["plan.device=cuda", "plan.memory_gib=0.6"]
    plan = run(["stage=plan", "task=gptj_continuation", *where], tmp_path / "run")
    assert json.loads((tmp_path / "run" / "plan.json").read_text()) == plan
    parts = [*plan["stays"].values(), *plan["phases"][plan["peak_phase"]].values()]
    assert sum(parts) == plan["total_bytes"]
    assert plan["available_bytes"] == int(0.6 * GIB)
    shown = capsys.readouterr().out
    assert ("it fits" in shown) == plan["fits"]
    if not plan["fits"]:
        assert plan["advice"]
        assert plan["advice"][-1]["fits"] == (plan["advice"][-1]["total"] <= 0.6 * GIB)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["policy=gpt_j_6b"], ["reward=roberta_dynabench", "judge=toxic_bert"]),
        (["policy=gpt_j_6b", "judge=none"], ["reward=roberta_dynabench"]),
        (["policy=gpt_j_6b", "reward=roberta_dynabench"], ["judge=toxic_bert"]),
        (["policy=gpt_j_6b", "reward=roberta_dynabench", "judge=toxic_bert"], None),
        ([], None),
    ],
)
def test_a_plan_says_where_the_miniatures_scorers_stand_for_real_ones(overrides, named):
    asked = ["task=gptj_continuation", "stage=plan", "plan.memory_gib=24", *overrides]
    notes = miniature_scorers(compose_settings(asked, "run"))
    if named is None:
        assert notes == []
    else:
        (note,) = notes
        assert f"add {' '.join(named)}, or" in note
        assert "is not counted" in note
