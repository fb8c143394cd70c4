"""stage=export: an adapter with a card, reloaded elsewhere and compared before it is done."""

import json
import shutil

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.errors import ExportError, SettingsError
from lora_detox.export.figures import figures_at
from lora_detox.export.finished_run import read_run
from lora_detox.export.reload import logits_of
from lora_detox.ownership import LIST, put_files
from lora_detox.policy.adapter import NO_ADAPTER
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.policy.strength import at_strength
from tests.runs import SMOKE, write_run

ROWS = [[5, 9, 200, 31], [7, 8]]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("written") / "finished")


@pytest.fixture
def finished(written, tmp_path):
    """A copy that may be changed; its base stays where the first one is."""
    return shutil.copytree(written, tmp_path / "finished")


@pytest.mark.slow
def test_the_export_is_the_adapter_alone_and_merging_is_measured(finished, tmp_path, capsys):
    overrides = ["stage=export", f"run={finished}", "export.merge=true", "threads=1"]
    summary = api.run([*overrides, "export.license=apache-2.0"], tmp_path / "out")
    folder = finished / "export"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "merged",
        LIST,
    }
    assert summary["logit_difference"] <= 1e-3
    assert summary["merged"]["maximum"] <= 1e-3
    assert summary["merged"]["same_top"] == 1.0
    assert "done" in capsys.readouterr().out

    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "tiny_model"
    results = {(r.metric_name, r.metric_value) for r in card.data.eval_results}
    assert ("Toxicity by embedded:reward@abc, before training", 0.4) in results
    assert ("Toxicity by embedded:reward@abc, after training", 0.2) in results
    assert str(tmp_path) not in card.content
    assert "-0.300 to -0.100" in card.content
    assert "Intended use and limits" in card.content

    base = AutoModelForCausalLM.from_pretrained(finished / "tiny_model", dtype=torch.float32)
    bare = logits_of(base, ROWS)
    plain = logits_of(PeftModel.from_pretrained(base, folder), ROWS)
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
    assert merged.generation_config.eos_token_id == [1]  # what ended the run's responses
    assert max((a - b).abs().max() for a, b in zip(plain, bare, strict=True)) > 1e-4
    for a, b in zip(plain, logits_of(merged, ROWS), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_encoder_decoder_exports_again_over_an_earlier_export(tmp_path):
    finished = write_run(tmp_path / "finished", "t5")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "adapter_config.json").write_text("{}")
    put_files(tmp_path / "earlier", finished / "export")
    summary = api.run(["stage=export", f"run={finished}", "threads=1"], tmp_path / "out")
    assert summary["logit_difference"] <= 1e-3
    config = json.loads((finished / "export" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(finished / "tiny_model")
    assert "AutoModelForSeq2SeqLM" in (finished / "export" / "README.md").read_text()


@pytest.mark.slow
def test_another_base_than_the_one_of_training_is_found_out(finished, tmp_path, monkeypatch):
    other = write_run(tmp_path / "other", "gptj")
    weights = other / "tiny_model" / "model.safetensors"
    changed = {name: tensor * 1.5 for name, tensor in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    config = json.loads((finished / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(finished / "tiny_model")
    (finished / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "named").symlink_to(other / "tiny_model")
    overrides = ["stage=export", f"run={finished}", "export.base_model=named", "threads=1"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="base_model"):
        api.run(overrides, tmp_path / "out")
    assert not (finished / "export").exists()
    assert not list(finished.glob(".export*"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], r"run: no value given.*run=DIR"),
        (["run=nowhere"], r"run: nowhere has no config\.yaml"),
        (["run=RUN", "export.repo_id=a/b/c"], r"export\.repo_id: got 'a/b/c', want a hub id"),
        (["run=RUN", "export.repo_id=user/name"], r"export\.base_model.*nobody else can load"),
        (["run=RUN", "export.dry_run=true"], r"export\.dry_run.*export\.repo_id=user/name"),
        (["run=RUN", "export.path=RUN"], r"export\.path.*something else"),
        (["run=RUN", "export.path=RUN/adapter", "export.overwrite=true"], r"belongs to the run"),
        (["run=RUN", "export.path=RUN/config.yaml"], r"export\.path.*is a file"),
    ],
)
def test_what_is_refused_before_anything_loads(finished, overrides, expected):
    overrides = [one.replace("RUN", str(finished)) for one in overrides]
    with pytest.raises(SettingsError, match=expected):
        api.compose_settings(["stage=export", *overrides])


def test_a_folder_that_holds_other_things_is_left_alone(finished, tmp_path):
    used = tmp_path / "used"
    (used / ".git").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "notes.txt", ".git/HEAD"):
        (used / name).write_text("{}")
    overrides = ["stage=export", f"run={finished}", f"export.path={used}"]
    refused = r"\.git, adapter_config\.json, adapter_model\.safetensors, notes\.txt.*overwrite=true"
    with pytest.raises(SettingsError, match=refused):
        api.compose_settings(overrides)
    api.compose_settings([*overrides, "export.overwrite=true"])
    (used / "merged").symlink_to(finished)
    with pytest.raises(SettingsError, match=r"merged is a link"):
        api.compose_settings([*overrides, "export.overwrite=true"])


def test_an_unfinished_run_is_refused(finished):
    (finished / "summary.json").unlink()
    with pytest.raises(SettingsError, match=r"no summary\.json.*resume=true"):
        api.compose_settings(["stage=export", f"run={finished}"])


@pytest.mark.slow
@pytest.mark.training
def test_a_start_out_of_the_base_is_exported_and_merged_as_it_was_trained(tmp_path):
    """PiSSA: a part of the base is in the adapter, so that the rest of the base is never stored."""
    options = ["task=gptj_continuation", *SMOKE, "algorithm.learning_rate=0.02"]
    options += ["adapter.init=pissa", "adapter.force_init=true", "adapter.rank=4"]
    summary = api.run(options, tmp_path / "run")
    assert summary["parameters"]["base_unchanged"] is True
    stored = ["stage=export", f"run={tmp_path / 'run'}", "export.merge=true", "threads=1"]
    exported = api.run(stored, tmp_path / "out")
    assert exported["logit_difference"] <= 1e-3
    assert exported["merged"]["maximum"] <= 1e-3


def dora_and_a_whole_head(finished):
    """Puts a trained DoRA adapter with a copy of the output matrix into a finished run."""
    base = AutoModelForCausalLM.from_pretrained(finished / "tiny_model", dtype=torch.float32)
    options = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "use_dora": True}
    model = get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.peft_config["default"].base_model_name_or_path = str(finished / "tiny_model")
    shutil.rmtree(finished / "adapter")
    model.save_pretrained(finished / "adapter")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_strength_is_written_into_the_weights(finished, tmp_path, capsys, kind):
    if kind == "dora":
        dora_and_a_whole_head(finished)
    overrides = ["stage=export", f"run={finished}", "export.strength=0.8", "threads=1"]
    merging = ["export.merge=true"] if kind == "dora" else []
    summary = api.run([*overrides, *merging], tmp_path / "out")
    assert summary["strength"] == 0.8
    assert summary["logit_difference"] <= 1e-3
    assert "strength 0.8, written into the weights" in capsys.readouterr().out
    folder = finished / "export"
    plan = BackbonePlan(
        path=str(finished / "tiny_model"),
        adapter=str(finished / "adapter"),
        frozen_reference=False,
        device="cpu",
        dtype="float32",
    )
    policy = load_policy(plan, NO_ADAPTER)
    whole = logits_of(policy.model, ROWS)
    with at_strength(policy, 0.8):
        expected = logits_of(policy.model, ROWS)
    base = AutoModelForCausalLM.from_pretrained(finished / "tiny_model", dtype=torch.float32)
    exported = logits_of(PeftModel.from_pretrained(base, folder), ROWS)
    for a, b, c in zip(exported, expected, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert (a - c).abs().max() > 1e-2
    if merging:
        assert summary["merged"]["maximum"] <= 1e-2
    card = ModelCard.load(folder / "README.md")
    assert "**Strength 0.8**" in card.content
    assert "were measured at strength 1; this strength was not evaluated" in card.content
    assert card.data.eval_results is None


@pytest.mark.slow
def test_the_card_has_the_figures_of_an_evaluated_strength(finished, tmp_path):
    evaluated = finished / "evaluate"
    evaluated.mkdir()
    shutil.copyfile(finished / "config.yaml", evaluated / "config.yaml")
    start = {"toxicity": {"mean": 0.41, "std": 0.1, "n": 50}}
    change = {"toxicity": {"mean": -0.3, "ci95": [-0.4, -0.2]}}
    end = {"toxicity": {"mean": 0.11, "std": 0.1, "n": 50}, "change": change, "ref_kl": 2.5}
    points = [
        {"strength": strength, "sets": {"in_distribution": one}}
        for strength, one in ((0.0, start), (0.8, end))
    ]
    model = {"name": "run", "adapter": str(finished / "adapter"), "frontier": points}
    words = {"compared": "English words", "counted": "words"}
    summary = {"stage": "evaluate", "models": [model], "scorers": {"reward": "r@1"}, "words": words}
    (evaluated / "summary.json").write_text(json.dumps(summary))
    source = read_run(finished)
    assert figures_at(source, 0.5) is None
    assert figures_at(source, 1.0) is None
    assert figures_at(source, 0.8)["after"] == end

    api.run(["stage=export", f"run={finished}", "export.strength=0.8"], tmp_path / "out")
    card = ModelCard.load(finished / "export" / "README.md")
    assert "are those of this strength against strength 0" in card.content
    assert "fell from 0.410 to 0.110 on 50 responses" in card.content
    names = {result.metric_name for result in card.data.eval_results}
    assert "Toxicity by r@1, after training, at strength 0.8" in names

    other = (evaluated / "config.yaml").read_text().replace("path: embedded:", "path: elsewhere:")
    (evaluated / "config.yaml").write_text(other)
    assert figures_at(source, 0.8) is None  # the card names the run's data


@pytest.mark.parametrize(
    ("strength", "match"), [("0", "bare base"), ("nan", "from -100 to 100"), ("1e9", "from -100")]
)
def test_what_is_no_strength_to_export(written, strength, match):
    overrides = ["stage=export", f"run={written}", f"export.strength={strength}"]
    with pytest.raises(SettingsError, match=rf"export\.strength: got .*{match}"):
        api.compose_settings(overrides)


def test_a_strength_without_its_group_is_answered_with_the_key(written):
    with pytest.raises(SettingsError, match=r"strength: did you mean export\.strength"):
        api.compose_settings(["stage=export", f"run={written}", "strength=0.8"])


def test_an_adapter_that_changed_its_base_is_exported_at_strength_1_alone(finished, tmp_path):
    file = finished / "adapter" / "adapter_config.json"
    config = {**json.loads(file.read_text()), "init_lora_weights": "pissa"}
    file.write_text(json.dumps(config))
    overrides = ["stage=export", f"run={finished}", "export.strength=0.5"]
    with pytest.raises(SettingsError, match="exported at strength 1: init_lora_weights=pissa"):
        api.run(overrides, tmp_path / "out")


@pytest.mark.slow
def test_gguf_is_written_beside_the_adapter_and_serving_is_told(tmp_path, capsys):
    finished = write_run(tmp_path / "finished", "t5")
    overrides = ["stage=export", f"run={finished}", "export.gguf=true", "export.strength=0.5"]
    summary = api.run([*overrides, "threads=1"], tmp_path / "out")
    file = finished / "export" / "adapter.gguf"
    assert summary["files"]["adapter.gguf"] == file.stat().st_size
    values = {one.name: np.asarray(one.data) for one in GGUFReader(file).tensors}
    adapter = load_file(finished / "adapter" / "adapter_model.safetensors")
    name = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_{}.weight"
    a, b = (adapter[name.format(part)].numpy() for part in "AB")
    written = values["enc.blk.0.attn_q.weight.lora_b"] @ values["enc.blk.0.attn_q.weight.lora_a"]
    np.testing.assert_allclose(written, 0.5 * b @ a, rtol=1e-4, atol=1e-7)

    places = {one["where"]: (one["works"], one["how"]) for one in summary["serving"]}
    assert places["vLLM"] == ("no", "it has no encoder-decoders such as t5")
    assert places["llama.cpp"] == ("yes", "-m BASE.gguf --lora adapter.gguf")
    console = capsys.readouterr().out
    assert "serving  Transformers + PEFT" in console
    assert "note     export.base_model: the card names the folder tiny_model" in console
    card = (finished / "export" / "README.md").read_text()
    assert "| vLLM | no | it has no encoder-decoders such as t5 |" in card


def test_gguf_of_a_model_that_llama_cpp_does_not_run_is_refused(finished, tmp_path):
    overrides = ["stage=export", f"run={finished}", "export.gguf=true"]
    with pytest.raises(SettingsError, match=r"export\.gguf: model type gptj, want one of gemma"):
        api.run(overrides, tmp_path / "out")
    assert not (finished / "export").exists()


@pytest.mark.parametrize("architecture", ["gptj", "t5"])
def test_the_lines_of_the_card_load_the_export(tmp_path, monkeypatch, capsys, architecture):
    """The card names folders by their last names alone, so it is read where these lie."""
    finished = write_run(tmp_path / "finished", architecture)
    api.run(["stage=export", f"run={finished}", "threads=1"], tmp_path / "out")
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "tiny_model").symlink_to(finished / "tiny_model")
    (place / "finished").symlink_to(finished / "export")
    monkeypatch.chdir(place)
    card = (finished / "export" / "README.md").read_text()
    lines = card.partition("```python\n")[2].partition("```")[0]
    capsys.readouterr()
    names = {}
    exec(lines, names)
    assert capsys.readouterr().out.strip()
    kind = {"gptj": "GPTJForCausalLM", "t5": "T5ForConditionalGeneration"}[architecture]
    assert type(names["model"].base_model.model).__name__ == kind


@pytest.mark.parametrize("text", ["Apache 2.0", "apache_2.0", "mit,"])
def test_what_is_no_licence_of_the_hub(written, text):
    overrides = ["stage=export", f"run={written}", f"export.license='{text}'"]
    with pytest.raises(SettingsError, match=r"export\.license: got .*as in apache-2\.0"):
        api.compose_settings(overrides)
