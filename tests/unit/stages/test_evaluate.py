"""stage=evaluate: protocols, several models in one call, what is refused before weights load."""

import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.errors import SettingsError
from lora_detox.evaluation.models import evaluated_models
from lora_detox.evaluation.protocol import protocol_numbers
from lora_detox.metrics.degeneration import degeneration
from lora_detox.types import Evaluation

QUICK = [
    "stage=evaluate",
    "task=gptj_continuation",
    "threads=1",
    "evaluation.prompts=6",
    "evaluation.new_tokens=6",
    "data.limit=40",
    "evaluation.sets.toxic.limit=40",
    "evaluation.sets.benign.limit=40",
]


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    """A run folder with an adapter on the miniature GPT-J that says something else."""
    base = str(embedded_path("gptj"))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("run_7")
    model.save_pretrained(folder / "adapter")
    return folder


def test_three_sets_for_two_models_in_one_table(adapter, tmp_path, capsys):
    models = f"evaluation.models=['embedded:policy',{adapter}]"
    overrides = [*QUICK, "evaluation.protocol=three_sets", models]
    summary = api.run(overrides, tmp_path / "out")
    assert [model["name"] for model in summary["models"]] == ["embedded:policy", adapter.name]
    base, tuned = (model["sets"] for model in summary["models"])
    assert list(base) == ["in_distribution", "toxic", "benign"]
    for role, one in tuned.items():
        assert one["toxicity"]["n"] == 6
        assert one["change"]["toxicity"]["mean"] == pytest.approx(
            one["toxicity"]["mean"] - base[role]["toxicity"]["mean"]
        )
        assert one["ref_kl"] != 0  # its reference is the bare base
        assert base[role]["ref_kl"] == 0
        assert "change" not in base[role]
    printed = capsys.readouterr().out
    assert "dataset id" in printed
    assert "mean toxicity" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script") == page.count("</script") == 2  # page.js, and the samples as data
    assert "std toxicity" in page
    words = " ".join(page.split())
    assert re.search(rf"<h1>{adapter.name} (is|has) [a-z ]+ its start \(embedded:policy\): ", words)
    assert "Every measure" in page
    change = tuned["in_distribution"]["change"]["distinct_2"]
    low, high = (f"{end:+.3f}" for end in change["ci95"])
    assert f"{change['mean']:+.3f} [{low}, {high}]" in page
    assert '"sides":["embedded:policy",' in page
    assert "embedded:policy" in printed
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 3 * 6
    assert set(json.loads(lines[0])) >= {"model", "set", "prompt", "response", "toxicity"}


def test_real_toxicity_prompts_takes_k_samples(tmp_path):
    overrides = [*QUICK, "evaluation.protocol=real_toxicity_prompts", "evaluation.samples=3"]
    summary = api.run(overrides, tmp_path / "out")
    assert summary["samples_per_prompt"] == 3
    assert summary["sampling"]["top_p"] == 0.9
    one = summary["models"][0]["sets"]["in_distribution"]
    assert one["toxicity"]["n"] == 18
    worst = one["degeneration"]
    assert worst["expected_maximum_toxicity"] >= one["toxicity"]["mean"]
    assert 0 <= worst["toxicity_probability"] <= 1
    assert {"dist_1", "dist_2", "dist_3"} <= set(worst)
    assert one["perplexity"] >= 1


def test_degeneration_by_hand():
    evaluation = Evaluation(
        prompts=["p", "p", "q", "q"],
        responses=["a b", "a b", "a", "c"],
        references=[[]] * 4,
        per_response={"toxicity": [0.1, 0.6, 0.2, 0.4]},
    )
    found = degeneration(evaluation, 2).summary()
    assert found["expected_maximum_toxicity"] == pytest.approx(0.5)
    assert found["toxicity_probability"] == 0.5
    assert found["dist_1"] == pytest.approx((2 / 4 + 2 / 2) / 2)
    assert found["dist_2"] == pytest.approx(1 / 2)  # q has no two words
    with pytest.raises(ValueError, match="4 responses are not 3"):
        degeneration(evaluation, 3)


def test_the_guide_wants_toxic_prompts_and_asks_400():
    trl_guide = ["stage=evaluate", "evaluation.protocol=trl_guide", "task=gptj_continuation"]
    with pytest.raises(SettingsError, match=r"data\.min_toxicity: got null"):
        api.compose_settings([*trl_guide, "data.min_toxicity=null"])
    numbers = protocol_numbers(api.compose_settings(trl_guide))
    assert (numbers.prompts, numbers.samples, numbers.response_tokens) == (400, 1, (30, 30))


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("[./nothing/here]", r"no model folder.*no adapter folder"),
        ("[{pth: x}]", r"path, revision, adapter, name"),
        ("[3]", r"want a folder, a hub id, or a mapping"),
    ],
)
def test_entries_that_name_nothing(models, expected):
    settings = api.compose_settings(["stage=evaluate", f"evaluation.models={models}"])
    with pytest.raises(SettingsError, match=expected):
        evaluated_models(settings)


def test_entries_of_every_form(adapter):
    models = (
        f"[{adapter}, {adapter}/adapter, 'some/model@v1', "
        "{path: some/base, adapter: some/adapter, revision: abc, name: mine}]"
    )
    settings = api.compose_settings(["stage=evaluate", f"evaluation.models={models}"])
    run, folder, hub, mapped = evaluated_models(settings)
    assert run.adapter == folder.adapter == str(adapter / "adapter")
    assert run.path == str(embedded_path("gptj"))
    assert {run.name, folder.name} == {adapter.name, f"{adapter.name} (2)"}
    assert (hub.path, hub.revision, hub.adapter) == ("some/model", "v1", None)
    assert (mapped.name, mapped.adapter, mapped.revision) == ("mine", "some/adapter", "abc")
