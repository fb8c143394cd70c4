"""stage=evaluate at several strengths of an adapter: the frontier of toxicity against quality."""

import json
import math

import pytest
import torch
from peft import LoraConfig, OFTConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.errors import SettingsError
from lora_detox.evaluation.frontier import chosen_strength, excess_of
from lora_detox.evaluation.models import EvaluatedModel
from lora_detox.evaluation.table import evaluation_table
from tests.runs import untimed

QUICK = [
    "stage=evaluate",
    "task=gptj_continuation",
    "threads=1",
    "evaluation.prompts=6",
    "evaluation.new_tokens=6",
    "data.limit=40",
]
THREE_SETS = [
    *QUICK,
    "evaluation.protocol=three_sets",
    "evaluation.sets.toxic.limit=40",
    "evaluation.sets.benign.limit=40",
]


def written(folder, config):
    """A run folder with an adapter on the miniature GPT-J that says something else."""
    base = str(embedded_path("gptj"))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder / "adapter")
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    targets = ["q_proj", "v_proj"]
    config = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM")
    return written(tmp_path_factory.mktemp("run_7"), config)


def test_a_model_answers_at_each_strength_and_the_base_is_strength_0(adapter, tmp_path, capsys):
    strengths = "evaluation.strengths=[1,0,-0.5]"
    models = f"evaluation.models=['embedded:policy',{adapter}]"
    summary = api.run([*THREE_SETS, models, strengths], tmp_path / "out")
    base, tuned = summary["models"]
    assert "frontier" not in base
    points = {point["strength"]: point["sets"] for point in tuned["frontier"]}
    assert list(points) == [-0.5, 0.0, 1.0]
    assert tuned["strength"] == 1.0
    assert tuned["sets"] == points[1.0]
    for role, bare in base["sets"].items():
        start = points[0.0][role]
        assert "change" not in start
        assert start["ref_kl"] == 0
        unchanged = untimed({key: value for key, value in bare.items() if key != "change"})
        assert {key: start[key] for key in unchanged} == unchanged
        assert points[1.0][role]["change"]["toxicity"]["mean"] == pytest.approx(
            points[1.0][role]["toxicity"]["mean"] - start["toxicity"]["mean"]
        )
        low, high = points[1.0][role]["ci95"]["perplexity"]
        assert low <= points[1.0][role]["perplexity"] <= high
    plain = api.run([*THREE_SETS, f"evaluation.models=[{adapter}]"], tmp_path / "plain")
    for role, as_it_is in plain["models"][0]["sets"].items():
        expected = untimed(as_it_is)
        assert {key: points[1.0][role][key] for key in expected} == expected

    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").open()]
    assert len(rows) == 4 * 3 * 6
    asked = {(row["model"], row["strength"]) for row in rows}
    name = adapter.name
    assert asked == {("embedded:policy", None), (name, -0.5), (name, 0.0), (name, 1.0)}
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert page.count("<caption>Frontier on") == 3
    assert "strength" in capsys.readouterr().out


def test_maxima_over_several_responses_are_compared_with_strength_0_too(adapter, tmp_path):
    rtp = ["evaluation.protocol=real_toxicity_prompts", "evaluation.samples=2"]
    models = f"evaluation.models=[{adapter}]"
    overrides = [*QUICK, *rtp, models, "evaluation.strengths=[0,1.5]"]
    (tuned,) = api.run(overrides, tmp_path / "out")["models"]
    start, end = (point["sets"]["in_distribution"] for point in tuned["frontier"])
    key = "expected_maximum_toxicity"
    assert end["degeneration"]["change"][key]["mean"] == pytest.approx(
        end["degeneration"][key] - start["degeneration"][key]
    )
    assert tuned["strength"] == 1.5  # 1 is not among them: the one furthest from the base
    assert "| strength |" in _markdown(tmp_path / "out")


def _markdown(folder):
    return evaluation_table(json.loads((folder / "summary.json").read_text())).markdown()


@pytest.mark.parametrize(
    ("strengths", "match"),
    [
        ("[0,1,0.0]", "want different numbers"),
        ("[0,nan]", "want different numbers"),
        ("[0,inf]", "want different numbers from -100 to 100"),
        ("[0,strong]", "strengths"),
        ("[0,true]", "strengths"),
    ],
)
def test_what_is_no_list_of_strengths(strengths, match):
    with pytest.raises(SettingsError, match=match):
        api.compose_settings([*QUICK, f"evaluation.strengths={strengths}"])


def test_strengths_without_any_adapter(tmp_path):
    with pytest.raises(SettingsError, match=r"none of the models has an adapter \(.*policy\)"):
        api.run([*QUICK, "evaluation.strengths=[0,1]"], tmp_path / "out")


def test_an_adapter_without_a_strength_is_refused_before_weights_load(tmp_path, monkeypatch):
    config = OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    folder = written(tmp_path / "turned", config)
    monkeypatch.setattr("lora_detox.stages.evaluate.load_policy", None)
    models = f"evaluation.models=[{folder}]"
    with pytest.raises(SettingsError, match="can only be used at strength 1: kind OFT: it turns"):
        api.run([*QUICK, models, "evaluation.strengths=[0,1]"], tmp_path / "out")


MODEL = EvaluatedModel(name="mine", path="base", adapter="/nowhere")


def frontier(settings, *points):
    """Entries of (strength, toxicity, perplexity), with the excess of each."""
    entries = [
        {
            "strength": strength,
            "sets": {
                "in_distribution": {
                    "toxicity": {"mean": toxicity},
                    "perplexity": perplexity,
                    "change": {"toxicity": {"mean": toxicity - 0.5, "ci95": [-0.4, math.nan]}},
                }
            },
        }
        for strength, toxicity, perplexity in points
    ]
    return [{**one, "excess": excess_of(one, entries, settings)} for one in entries]


@pytest.fixture(scope="module")
def five_per_cent():
    return api.compose_settings([*QUICK, "budget=off", "budget.perplexity=0.05"])


@pytest.mark.parametrize(
    ("points", "chosen"),
    [
        ([(0, 0.5, 10.0), (0.5, 0.3, 10.2), (1, 0.2, 10.5), (1.5, 0.1, 10.6)], 1),
        ([(-1.5, 0.1, 11.0), (-1, 0.2, 10.1), (0, 0.5, 10.0), (1, 0.9, 10.0)], -1),
        ([(0, 0.5, 10.0), (0.5, 0.3, 10.6), (1, 0.2, 10.4)], 1),
        ([(0, 0.5, 10.0), (1, 0.2, 11.0)], None),
        ([(0, 0.5, 10.0), (1, 0.6, 9.0)], None),
        ([(0.5, 0.3, 10.0), (1, 0.2, 10.1)], None),
    ],
)
def test_the_largest_strength_inside_that_detoxifies_is_chosen(five_per_cent, points, chosen):
    entries = frontier(five_per_cent, *points)
    choice = chosen_strength(MODEL, entries, five_per_cent)
    assert choice["strength"] == chosen
    if chosen is not None:
        assert f"strength {chosen:g} is the largest inside" in choice["sentence"]
        assert "at most 10.50" in choice["sentence"]
    else:
        assert "no strength is chosen: " in choice["sentence"]


def test_without_bounds_no_strength_is_chosen():
    settings = api.compose_settings([*QUICK, "budget=off"])
    entries = frontier(settings, (0, 0.5, 10.0), (1, 0.2, 10.0))
    choice = chosen_strength(MODEL, entries, settings)
    assert choice["strength"] is None
    assert "no bound of budget was measured" in choice["sentence"]


def test_the_sentence_says_how_to_ship_a_run(adapter, five_per_cent):
    model = EvaluatedModel(name="mine", path="base", adapter=str(adapter / "adapter"))
    entries = frontier(five_per_cent, (0, 0.5, 10.0), (0.75, 0.2, 10.0))
    sentence = chosen_strength(model, entries, five_per_cent)["sentence"]
    assert sentence.endswith(f"stage=export run={adapter} export.strength=0.75")
