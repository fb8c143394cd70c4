"""Clients in processes of their own, as users start them, against a hub on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_detox.embedded import embedded_path
from lora_detox.embedded.tiny import write_tiny_policy
from tests.hub.server import serve

ROOT = Path(__file__).resolve().parents[2]
POLICY = "EleutherAI/gpt-neo-125m"
REWARD = "facebook/roberta-hate-speech-dynabench-r4-target"
DATA = "allenai/real-toxicity-prompts"


def folder_bytes(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def prompt_rows() -> bytes:
    """Rows of RealToxicityPrompts' shape."""
    rows = []
    for i in range(80):
        toxicity = None if i % 10 == 0 else i / 80
        text = f"I told you {i} times that this is"
        rows.append({"filename": str(i), "prompt": {"text": text, "toxicity": toxicity}})
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A tiny model and the miniature classifier under ids that the files of conf/ name."""
    tiny = tmp_path_factory.mktemp("tiny")
    gptj = folder_bytes(write_tiny_policy(embedded_path("gptj"), tiny / "gptj"))
    with serve() as served:
        first = {**gptj, "README.md": b"first version"}
        served.pinned = served.add("model", POLICY, first)
        served.newest = served.repos["model", POLICY].commit({**gptj, "README.md": b"second"})
        served.add("model", REWARD, folder_bytes(embedded_path("reward")))
        served.add("model", "closed/model", gptj, gated=True)
        served.add("model", "old/pickles", {"config.json": gptj["config.json"], "m.bin": b"x"})
        served.add("dataset", DATA, {"prompted.jsonl": prompt_rows()})
        served.tokens = {"hf_writes": ("writer", True), "hf_reads": ("writer", False)}
        yield served


@pytest.fixture
def client(hub, tmp_path):
    """Run Python code or the command line as a user of that hub; returns the finished process."""

    def run(*arguments: str, token: str | None = None, offline: bool = False, home: str = "home"):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        if token:
            environment["HF_TOKEN"] = token
        if offline:
            environment["HF_HUB_OFFLINE"] = "1"
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
