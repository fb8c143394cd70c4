"""The model as lighteval can read it: a folder of its own."""

import json
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_detox.export.merge import merged_model


def model_folder(model: str, adapter: Path | None, sampled: bool, folder: Path) -> Path:
    """Write a folder that lighteval takes as the model.

    lighteval 0.13 writes its cache of responses into the folder of a local model, so that it gets
    one of its own. It cannot load adapters (it reads a setting that its own class forbids), so they
    are merged. And it leaves out `do_sample`, which therefore stands in generation_config.json.

    Args:
        model: folder or hub id of the base.
        adapter: its folder, merged into the base in fp32; without one the files are links.
        sampled: whether responses are drawn.
        folder: to write into.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapter is not None:
        _write_merged(model, adapter, folder)
    else:
        _link_files(Path(model if os.path.isdir(model) else snapshot_download(model)), folder)
    if sampled:
        file = folder / "generation_config.json"
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        file.unlink(missing_ok=True)  # a link leads to the model's own file
        file.write_text(json.dumps(stored | {"do_sample": True}), encoding="utf-8")
    return folder


def _link_files(source: Path, folder: Path) -> None:
    for file in source.resolve().iterdir():
        link = folder / file.name
        if file.is_file() and not link.exists():
            link.symlink_to(file.resolve())


def _write_merged(base: str, adapter: Path, folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    merged_model(PeftModel.from_pretrained(model, adapter)).save_pretrained(folder)
