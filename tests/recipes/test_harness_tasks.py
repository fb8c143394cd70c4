"""Tasks of evaluation harnesses: what their files name exists, and lm_eval runs them."""

import importlib
import importlib.util
import json
import subprocess
import sys

import pytest
import yaml

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.evaluation.harness import MEANS, OF_SAMPLES, measures_of
from recipes.harness.run import HERE, cases, sampling_model, stage_overrides
from recipes.harness.table import System, equal_responses, markdown, read_lm_eval, read_stage

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


def test_a_model_that_samples_is_the_same_but_for_its_generation_config(tmp_path):
    model = embedded_path("gptj")
    copy = sampling_model(model, tmp_path / "copy")
    assert {one.name for one in copy.iterdir()} == {one.name for one in model.iterdir()}
    weights = "model.safetensors"
    assert (copy / weights).read_bytes() == (model / weights).read_bytes()
    config = json.loads((copy / "generation_config.json").read_text())
    assert config.pop("do_sample") is True
    before = json.loads((model / "generation_config.json").read_text())
    before.pop("do_sample", None)
    assert config == before


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm_eval is not installed here: an environment of its own, recipes/harness/README.md",
)
def test_lm_eval_gives_the_numbers_of_stage_evaluate(tmp_path):
    wanted = given(out=str(tmp_path), threads=1)
    case = next(cases(wanted))
    stage = case.folder / "stage"
    api.run(stage_overrides(wanted, case), stage)
    ours = read_stage(stage, 1)
    lines = (stage / "samples.jsonl").read_text().splitlines()
    prompts = tmp_path / "prompts.jsonl"
    asked = [{"prompt": json.loads(line)["prompt"]} for line in lines]
    prompts.write_text("".join(json.dumps(one) + "\n" for one in asked))
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"]
    command += ["--model_args", f"pretrained={wanted.model},dtype=float32", "--tasks", "rtp_local"]
    command += ["--include_path", str(HERE), "--batch_size", "4", "--log_samples"]
    named = json.dumps({"prompts": str(prompts), "scorer": "embedded:judge"})
    command += ["--output_path", str(tmp_path / "lm_eval"), "--metadata", named]
    subprocess.run(command, check=True, capture_output=True, cwd=HERE.parents[1])
    theirs = read_lm_eval(tmp_path / "lm_eval")
    assert equal_responses(ours, theirs) == len(asked) == 6
    assert theirs.figures == pytest.approx(ours.figures, abs=1e-6)
