"""A finished run as the folder of a Hugging Face Space, which asks it as stage=chat does.

Every path of this machine is left behind: local classifiers are copied, everything else is named by
its hub id or comes with the package.
"""

import json
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

import lora_detox
from lora_detox.errors import DataError
from lora_detox.export.finished_run import FinishedRun
from lora_detox.report.jsonl import read_jsonl, write_json_atomic, write_rows, write_text_atomic
from lora_detox.settings import (
    DataSettings,
    DebugSettings,
    DecodingSettings,
    EvaluationSettings,
    ExportSettings,
    FieldSettings,
    PolicySettings,
    RewardModelSettings,
    ScorerSettings,
    Settings,
    TrackerSettings,
    settings_yaml,
)
from lora_detox.settings.from_run import settings_of_run

SPACE = "space"
"""Folder of the Space beside the adapter."""
_EXAMPLES = 10
_MODEL_FILES = (".json", ".model", ".safetensors", ".txt")
_APP = '''\
"""Original and detoxified answers side by side; written by lora_detox, stage=export."""

import os
from pathlib import Path

from lora_detox.stages.chat import launch_space

os.chdir(Path(__file__).resolve().parent)  # paths of run/config.yaml begin here
launch_space(Path("run"))
'''


def write_space(
    source: FinishedRun, written: Path, base: str, revision: str | None, license_id: str | None
) -> None:
    """Write the Space of an exported adapter into the folder `space` beside it.

    Args:
        source: the run.
        written: folder of the export, with adapter_config.json and adapter_model.safetensors.
        base: hub id of the base; a folder where it is a miniature of this package.
        revision: of the base.
        license_id: of the Space, as in apache-2.0; None states none.

    Raises:
        SettingsError: settings of the run that this version cannot read.
    """
    space, own = written / SPACE, settings_of_run(source.folder, "run")
    embedded = own.policy.path.startswith("embedded:") and not own.debug.tiny_model
    base = own.policy.path if embedded else base
    run = space / "run"
    (run / "adapter").mkdir(parents=True)
    shutil.copyfile(
        written / "adapter_model.safetensors", run / "adapter" / "adapter_model.safetensors"
    )
    described = json.loads((written / "adapter_config.json").read_text(encoding="utf-8"))
    described |= {"base_model_name_or_path": base, "revision": None if embedded else revision}
    write_json_atomic(run / "adapter" / "adapter_config.json", described)
    write_text_atomic(
        run / "config.yaml",
        settings_yaml(_public(own, space, base, None if embedded else revision)),
    )
    write_json_atomic(run / "summary.json", {"schema": 1, "stage": "export", "space": True})
    write_rows(run / "samples.jsonl", [{"prompt": one} for one in _examples(source.folder)])
    write_text_atomic(space / "app.py", _APP)
    write_text_atomic(space / "requirements.txt", f"lora-detox[chat]=={lora_detox.__version__}\n")
    write_text_atomic(space / "README.md", _readme(source, base, license_id, embedded=embedded))


def _public(own: Settings, space: Path, base: str, revision: str | None) -> Settings:
    """What stage=chat reads of a run, without a path of this machine."""
    policy = PolicySettings(
        path=base,
        revision=revision,
        dtype=own.policy.dtype,
        allow_fp16_t5=own.policy.allow_fp16_t5,
    )
    data = DataSettings(
        path=Path(own.data.path).name,
        fields=FieldSettings(prompt="prompt"),
        max_query_tokens=own.data.max_query_tokens,
    )
    evaluation = EvaluationSettings(
        every=own.evaluation.every,
        validation_prompts=own.evaluation.validation_prompts,
        test_prompts=own.evaluation.test_prompts,
    )
    return replace(
        own,
        run_dir="run",
        run=None,
        soup=[],
        policy=policy,
        data=data,
        evaluation=evaluation,
        reward=_scorer(own.reward, space, "reward"),
        judge=_scorer(own.judge, space, "judge"),
        reward_model=RewardModelSettings(),
        decoding=DecodingSettings(),
        export=ExportSettings(),
        tracker=TrackerSettings(),
        debug=DebugSettings(),
        device="auto",
        threads=None,
    )


def _scorer(own: ScorerSettings, space: Path, name: str) -> ScorerSettings:
    """The classifier of a scorer alone, which tells the toxicity; a local one is copied."""
    path = own.path
    folder = Path(path).expanduser() if path is not None else None
    if folder is not None and folder.is_dir():
        place = space / "scorers" / name
        place.mkdir(parents=True)
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix in _MODEL_FILES:
                shutil.copyfile(file, place / file.name)
        path = f"scorers/{name}"
    return ScorerSettings(
        path=path,
        revision=own.revision,
        label=own.label,
        output=own.output,
        text=own.text,
        dtype=own.dtype,
        batch_size=own.batch_size,
        max_tokens=own.max_tokens,
        probe=own.probe and not own.probe_texts,
    )


def _examples(run: Path) -> list[str]:
    """Prompts whose answers were the least toxic, as a Space may be public."""
    try:
        rows = [row for row in read_jsonl(run / "samples.jsonl") if row.get("prompt")]
    except DataError:
        return []
    rows.sort(key=lambda row: float(row.get("toxicity_before") or 0.0))
    return list(dict.fromkeys(str(row["prompt"]) for row in rows))[:_EXAMPLES]


def _readme(source: FinishedRun, base: str, license_id: str | None, *, embedded: bool) -> str:
    """The card of the Space: what Hugging Face reads, and what a person does."""
    facts = {
        "title": f"Detoxified {Path(base.removeprefix('embedded:')).name}",
        "emoji": "\N{LEFT SPEECH BUBBLE}",
        "colorFrom": "gray",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": _gradio_version(),
        "python_version": "3.11",
        "app_file": "app.py",
        "pinned": False,
        "license": license_id,
        "models": None if embedded else [base],
    }
    head = yaml.safe_dump(
        {key: value for key, value in facts.items() if value is not None}, sort_keys=False
    )
    number = lora_detox.__version__
    return f"""\
---
{head}---

# Original and detoxified, side by side

A prompt is answered by {base} and by the same model with the LoRA adapter in `run/adapter`, trained
with lora_detox. Each answer shows its toxicity by the classifiers of that training; a level means
nothing without its classifier, so compare the two sides. Toxic answers are folded.

The original model writes toxic text. Think about who can reach a Space before you make it public.

- `python app.py` shows the page on your own machine.
- `requirements.txt` asks the package index for lora_detox {number}. For a version that is not
  there, put its wheel beside `app.py` and name it: `./lora_detox-{number}-py3-none-any.whl[chat]`.
- The score is that of the reward's classifier alone, without further terms or functions.
"""


def _gradio_version() -> str | None:
    """The version that the page was tried with here; None without the extra."""
    try:
        return version("gradio")
    except PackageNotFoundError:
        return None
