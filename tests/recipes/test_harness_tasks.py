"""Tasks of evaluation harnesses: what their files name exists, and lm_eval runs them."""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.evaluation.harness import MEANS, OF_SAMPLES, measures_of
from recipes.harness.lighteval_model import model_folder
from recipes.harness.run import (
    HERE,
    cases,
    run_lighteval,
    run_lm_eval,
    run_stage_evaluate,
    stage_overrides,
    systems,
)
from recipes.harness.table import System, equal_responses, markdown

TASKS = {"rtp_local": MEANS, "rtp_local_sampled": (*MEANS, *OF_SAMPLES)}


class Loader(yaml.SafeLoader):
    """Leaves the functions of lm_eval's YAML as their names."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def task_of(name):
    task = yaml.load((HERE / f"{name}.yaml").read_text(), Loader)
    included = task.pop("include", None)
    return {**task_of(included.removesuffix(".yaml")), **task} if included else task


def given(**further):
    base = {"model": str(embedded_path("gptj")), "scorer": "embedded:judge", "label": ""}
    base |= {"data": "embedded:comments", "prompts": 6, "adapter": None, "samples": 1}
    base |= {"lm_eval": None, "lighteval": None, "threads": 1, "out": "nowhere", "report": False}
    base |= {"sampled_prompts": None}
    return type("Given", (), base | further)()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_functions_that_exist_and_the_metrics_that_they_give(name):
    task = task_of(name)
    assert task["task"] == name
    for key in ("custom_dataset", "process_results"):
        module, _, function = task[key].rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))
    samples = task.get("repeats", 1)
    measured = measures_of("Hello", ["Thank you."] * samples, "embedded:judge")
    listed = [one["metric"] for one in task["metric_list"]]
    assert listed == list(TASKS[name]) == list(measured)
    assert task["filter_list"][0]["filter"] == []  # the usual filter keeps one response


def test_decoding_of_the_tasks_is_that_of_the_protocol():
    settings = api.compose_settings(stage_overrides(given(), next(cases(given()))), "nowhere")
    assert settings.evaluation.greedy
    assert settings.evaluation.protocol.value == "real_toxicity_prompts"
    greedy, sampled = (task_of(name)["generation_kwargs"] for name in TASKS)
    assert greedy == {"until": [], "do_sample": False, "max_gen_toks": 20}
    assert (sampled["top_p"], sampled["top_k"], sampled["temperature"]) == (0.9, 0, 1.0)
    assert task_of("rtp_local_sampled")["repeats"] == 25


def system(name, toxicity, responses):
    return System(
        name=name,
        figures={MEANS[0]: sum(toxicity) / len(toxicity)},
        by_prompt={MEANS[0]: toxicity},
        responses=responses,
    )


def test_the_table_counts_equal_prompts_and_shows_differences():
    ours = system("ours", [0.1, 0.2, 0.6], [["a"], ["b"], ["c"]])
    theirs = system("theirs", [0.1, 0.5, 0.6], [["a"], ["x"], ["c"]])
    assert equal_responses(ours, theirs) == 2
    text = markdown([ours, ours, theirs])
    assert "| judge_toxicity | 0.300000 | 0.300000 | +0.0e+00 | 0.400000 | +0.1000 (" in text
    assert "| prompts with equal responses | 3 | 3 of 3 |  | 2 of 3 |  |" in text


def test_cases_are_base_and_adapter_with_both_ways_of_decoding(tmp_path):
    assert [one.task for one in cases(given(samples=3))] == ["rtp_local", "rtp_local_sampled"]
    asked = given(adapter=tmp_path, samples=3, sampled_prompts=2, out=str(tmp_path))
    listed = list(cases(asked))
    ways = [(one.adapter is not None, one.prompts, one.samples) for one in listed]
    assert ways == [(False, 6, 1), (True, 6, 1), (False, 2, 3), (True, 2, 3)]
    assert len({one.folder for one in listed} | {one.name for one in listed}) == 8


def test_a_model_that_samples_is_the_same_but_for_its_generation_config(tmp_path):
    model = embedded_path("gptj")
    stored = json.loads((model / "generation_config.json").read_text())
    plain = model_folder(str(model), None, False, tmp_path / "plain")
    assert json.loads((plain / "generation_config.json").read_text()) == stored
    sampled = model_folder(str(model), None, True, tmp_path / "sampled")
    assert {one.name for one in sampled.iterdir()} == {one.name for one in model.iterdir()}
    weights = "model.safetensors"
    assert (sampled / weights).read_bytes() == (model / weights).read_bytes()
    config = json.loads((sampled / "generation_config.json").read_text())
    assert config == stored | {"do_sample": True}
    assert json.loads((model / "generation_config.json").read_text()) == stored


@pytest.fixture
def adapter(tmp_path):
    base = AutoModelForCausalLM.from_pretrained(embedded_path("gptj"), dtype=torch.float32)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@torch.no_grad()
def test_an_adapter_is_merged_for_lighteval(adapter, tmp_path):
    base = str(embedded_path("gptj"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.arange(5, 15)[None]
    plain = model(ids).logits
    apart = PeftModel.from_pretrained(model, adapter)(ids).logits
    folder = model_folder(base, adapter, True, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(merged(ids).logits, apart, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, apart, atol=1e-2)
    assert merged.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(folder).encode("Thank you.")


def environment_of(harness):
    """LM_EVAL_VENV or LIGHTEVAL_VENV, or this one: lighteval's cannot run Hydra."""
    named = os.environ.get(f"{harness.upper()}_VENV")
    if named is None and importlib.util.find_spec(harness) is None:
        pytest.skip(f"no {harness} here: an environment of its own, recipes/harness/README.md")
    return Path(named or sys.prefix)


@pytest.mark.parametrize("harness", ["lm_eval", "lighteval"])
def test_a_harness_gives_the_numbers_of_stage_evaluate(harness, adapter, tmp_path):
    run = {"lm_eval": run_lm_eval, "lighteval": run_lighteval}[harness]
    wanted = given(out=str(tmp_path), adapter=adapter, samples=2)
    setattr(wanted, harness, environment_of(harness))
    _, adapter_greedy, base_sampled, _ = cases(wanted)
    for case in (adapter_greedy, base_sampled):
        run_stage_evaluate(wanted, case)
        run(wanted, case)
        ours, theirs = systems(wanted, case)
        assert list(ours.figures) == list(theirs.figures) == list(TASKS[case.task])
        assert [len(texts) for texts in theirs.responses] == [case.samples] * 6
        if case.samples == 1:
            assert equal_responses(ours, theirs) == 6
            assert theirs.figures == pytest.approx(ours.figures, abs=1e-5)
