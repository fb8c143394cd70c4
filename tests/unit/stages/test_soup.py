"""stage=soup: the mean of updates is exact, and is held to the same budget as a run."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lora_detox import api
from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from lora_detox.errors import SettingsError
from lora_detox.policy.soup import average_adapters
from lora_detox.stages.soup import inside_runs
from tests.runs import ONE_RUN, SMOKE

SMALL = [*SMOKE, "checkpoint.keep=1"]


def write_adapter(folder, model_folder, *, rank, alpha, seed, **options):
    """A random adapter, and the weights of the base with it merged."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    options = {"target_modules": ["q_proj", "v_proj"], **options}
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, **options))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return {n: w.clone() for n, w in model.merge_and_unload().state_dict().items()}


@pytest.fixture
def base(tmp_path):
    return write_tiny_policy(embedded_path("gptj"), tmp_path / "model")


def test_the_mean_of_updates_is_exact_for_any_rank_and_scaling(tmp_path, base):
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    merged = [
        write_adapter(folders[0], base, rank=2, alpha=4, seed=1),
        write_adapter(folders[1], base, rank=3, alpha=1, seed=2),
        write_adapter(folders[2], base, rank=4, alpha=8, seed=3, use_rslora=True),
    ]
    soup = average_adapters(folders)
    assert soup.rank == 9
    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    updates = []
    for name in bare:
        if not name.endswith(("q_proj.weight", "v_proj.weight")):
            continue
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        update = soup.tensors[f"{layer}.lora_B.weight"] @ soup.tensors[f"{layer}.lora_A.weight"]
        each = [one[name] - bare[name] for one in merged]
        torch.testing.assert_close(update / soup.stretch, sum(each) / 3, rtol=1e-4, atol=1e-5)
        updates.append([one.flatten() for one in each])
    a, b, c = (torch.cat(parts) for parts in zip(*updates, strict=True))
    cosines = [torch.cosine_similarity(x, y, dim=0) for x, y in ((a, b), (a, c), (b, c))]
    assert soup.cosine == pytest.approx(float(sum(cosines) / 3), abs=1e-4)
    length = float((a.norm() + b.norm() + c.norm()) / 3)
    assert soup.stretch == pytest.approx(length / float(((a + b + c) / 3).norm()), rel=1e-4)


def test_adapters_on_other_layers_and_dora_are_refused(tmp_path, base):
    first, second, third = (tmp_path / name for name in "abc")
    write_adapter(first, base, rank=2, alpha=4, seed=1)
    write_adapter(second, base, rank=2, alpha=4, seed=1, target_modules=["q_proj"])
    write_adapter(third, base, rank=2, alpha=4, seed=1, use_dora=True)
    with pytest.raises(SettingsError, match="different layers"):
        average_adapters([first, second])
    with pytest.raises(SettingsError, match="more than LoRA's two factors"):
        average_adapters([first, third])


@pytest.mark.training
@pytest.mark.parametrize("task", ["flan_summary", "gptj_continuation"])
def test_a_soup_of_runs_is_a_run(tmp_path, task, capsys, finished_run):
    folders = [finished_run(f"task={task}", *ONE_RUN, *seed) for seed in ([], ["seed=1"])]
    overrides = [f"task={task}", *SMALL]
    asked = [*overrides, "stage=soup", f"soup=[{folders[0]},{folders[1]}]"]
    free = api.run([*asked, "budget=off"], tmp_path / "soup")
    said = capsys.readouterr().out
    assert "Mean of 2 runs" in said or "the mean of 2 runs" in said
    assert free["parameters"]["base_unchanged"]
    assert free["soup"]["runs"] == [str(folder) for folder in folders]
    assert -1 < free["soup"]["cosine"] < 1

    auto = AutoModelForSeq2SeqLM if task == "flan_summary" else AutoModelForCausalLM
    model_folder = write_tiny_policy(
        embedded_path("t5" if task == "flan_summary" else "gptj"), tmp_path / "again"
    )

    def merged(folder):
        model = auto.from_pretrained(model_folder, dtype=torch.float32)
        return PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload().state_dict()

    one, two, soup = (merged(folder) for folder in (*folders, tmp_path / "soup"))
    bare = auto.from_pretrained(model_folder, dtype=torch.float32).state_dict()
    stretch = free["soup"]["stretch"]
    assert stretch > 1
    for name, weight in soup.items():
        mean = (one[name] + two[name]) / 2 - bare[name]
        torch.testing.assert_close(weight, bare[name] + stretch * mean, rtol=1e-4, atol=1e-6)
    moved = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-4  # else the mean would be no news


@pytest.mark.training
def test_a_soup_outside_the_budget_is_followed_back_to_the_start(tmp_path, finished_run):
    task = "task=gptj_continuation"
    folders = [finished_run(task, *ONE_RUN, *seed) for seed in ([], ["seed=1"])]
    overrides = [task, *SMALL]
    asked = ["stage=soup", f"soup=[{folders[0]},{folders[1]}]", "budget.fallback=[0.5]"]
    never = "budget.perplexity=-0.9"  # a tenth of the start's
    held = api.run([*overrides, *asked, never], tmp_path / "held")
    assert held["budget"]["chosen_iteration"] == 0
    assert [one["share"] for one in held["budget"]["between"]] == [0.5]
    tensors = load_file(tmp_path / "held" / "adapter" / "adapter_model.safetensors")
    assert all(not w.any() for n, w in tensors.items() if "lora_B" in n)
    rows = (tmp_path / "held" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["iteration"] for row in rows] == [0, 2]


@pytest.mark.training
def test_a_run_that_strayed_is_left_out(tmp_path, capsys):
    """Three runs of the miniature, of which one learned at a rate that wrecked its text."""
    folders = [tmp_path / name for name in ("calm", "wrecked", "quiet")]
    overrides = ["task=gptj_continuation", *SMALL, "debug.tiny_model=false"]
    for seed, folder in enumerate(folders):
        rate = 0.1 if folder.name == "wrecked" else 1e-6
        own = [f"seed={seed}", f"algorithm.learning_rate={rate}", "guard=off"]
        api.run([*overrides, *own, "budget=off"], folder)
    asked = ["stage=soup", f"soup=[{','.join(map(str, folders))}]", "budget.perplexity=0.1"]
    bounds = ["budget.kl=null", "budget.distinct_2=null", "budget.length=null"]
    held = api.run([*overrides, *asked, *bounds], tmp_path / "held")
    assert held["soup"]["runs"] == [str(folders[0]), str(folders[2])]
    assert held["soup"]["left_out"] == [str(folders[1])]
    said = " ".join(capsys.readouterr().out.split())
    assert f"left out: {folders[1]}, outside the budget by" in said
    assert "the mean of 2 runs" in said


def test_two_runs_are_averaged_where_none_is_inside(tmp_path):
    folders = []
    for place, perplexity in enumerate((1.3, 1.2, 1.1)):
        folders.append(tmp_path / str(place))
        folders[-1].mkdir()
        budget = {"measured": {"perplexity": perplexity}, "start": {"perplexity": 1.0}}
        (folders[-1] / "summary.json").write_text(json.dumps({"budget": budget}))
    settings = api.compose_settings(["task=gptj_continuation"], tmp_path / "run")
    settings.soup = [str(folder) for folder in folders]
    assert inside_runs(settings) == settings.soup[1:]


@pytest.mark.training
def test_what_cannot_be_averaged_is_said_before_anything_loads(tmp_path, finished_run):
    overrides = ["task=gptj_continuation", *ONE_RUN]
    one = finished_run(*overrides)
    two = shutil.copytree(finished_run(*overrides, "seed=1"), tmp_path / "two")
    config = two / "config.yaml"
    config.write_text(config.read_text().replace("split_seed: 0", "split_seed: 5"))
    asked = [*overrides, "stage=soup"]
    for given, message in (
        ([], "soup: got 0 run"),
        ([f"soup=[{one},{one}]"], "soup: got 1 run"),
        ([f"soup=[{one},{tmp_path}/none]"], "none has no config.yaml"),
        ([f"soup=[{one},{two}]"], r"data.split_seed: was 5, now 0"),
        ([f"soup=[{one},{two}]", "adapter=dora"], "adapter.dora"),
        ([f"soup=[{one},{two}]", f"policy.adapter={one}/adapter"], "policy.adapter: got"),
    ):
        with pytest.raises(SettingsError, match=message):
            api.compose_settings([*asked, *given], tmp_path / "never")
