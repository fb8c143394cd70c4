"""A queue whose corpora, models or adapters are missing says so before it runs anything."""

import importlib
import sys

import pytest

CLASSIFIED = ["smollm2_continuation", "method_frontiers", "which_lora", "transfer", "rewrite"]
WITH_CORPORA = [*CLASSIFIED, "headline", "layers", "real_classifiers", "sentiment"]


def ended(recipe, *words, monkeypatch):
    """What a recipe says as it ends."""
    module = importlib.import_module(f"recipes.{recipe}.run")
    monkeypatch.setattr(sys, "argv", [recipe, *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        module.main()
    return str(caught.value)


@pytest.mark.parametrize("recipe", WITH_CORPORA)
def test_a_queue_without_corpora_names_their_folder(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("os.environ", {})
    words = ("--shared", tmp_path / "shared", "--out", tmp_path / "out")
    said = ended(recipe, *words, monkeypatch=monkeypatch)
    assert said.startswith(f"no corpora in {tmp_path / 'shared' / 'data'}, ")
    assert "--shared DIR" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", [*CLASSIFIED, "headline"])
def test_a_queue_without_classifiers_says_what_trains_them(recipe, tmp_path, monkeypatch):
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "models" / "classifiers" / "reward" / "classifier").mkdir(parents=True)
    monkeypatch.setattr("os.environ", {})
    words = ("--shared", tmp_path / "shared", "--out", tmp_path / "out")
    said = ended(recipe, *words, "--models", tmp_path / "models", monkeypatch=monkeypatch)
    assert said.startswith(f"no judge classifier in {tmp_path / 'models' / 'classifiers'}; ")
    assert "python -m recipes.real_classifiers.run" in said
    assert not (tmp_path / "out").exists()


def test_a_transfer_without_adapters_says_what_trains_them(tmp_path, monkeypatch):
    shared, models = tmp_path / "shared", tmp_path / "models"
    (shared / "data").mkdir(parents=True)
    (models / "labelled").mkdir(parents=True)
    (models / "labelled" / "judge.jsonl").touch()
    for name in ("minilm-l6", "smollm2-135m"):
        (models / name).mkdir()
    for half in ("reward", "judge"):
        (models / "classifiers" / half / "classifier").mkdir(parents=True)
    words = ("--shared", shared, "--models", models, "--adapters", tmp_path / "trained")
    said = ended("transfer", *words, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    assert said.startswith(f"no adapter in {tmp_path / 'trained' / 'seed0'}")
    assert "python -m recipes.smollm2_continuation.run" in said
    assert not (tmp_path / "out").exists()
