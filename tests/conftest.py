"""Every test runs offline, on one thread count, with tensor shapes and types checked."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LORA_DETOX_CACHE"] = tempfile.mkdtemp(prefix="lora-detox-tests-")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# Before the package is imported anywhere: every annotated function checks its shapes.
install_import_hook(
    [
        f"lora_detox.{name}"
        for name in ("types", "policy", "rollout", "advantages", "update", "scores", "metrics.kl")
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development corpora and models beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared/ folder beside the checkout: its corpora and models are not here")
    return folder
