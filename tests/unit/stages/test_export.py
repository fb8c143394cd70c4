"""stage=export: an adapter with a card, reloaded elsewhere and compared before it is done."""

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_detox import api
from lora_detox.errors import ExportError, SettingsError
from lora_detox.export.reload import logits_of
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
    (finished / "export").mkdir()
    (finished / "export" / "adapter_config.json").write_text("{}")
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
    ],
)
def test_what_is_refused_before_anything_loads(finished, overrides, expected):
    overrides = [one.replace("RUN", str(finished)) for one in overrides]
    with pytest.raises(SettingsError, match=expected):
        api.compose_settings(["stage=export", *overrides])


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
