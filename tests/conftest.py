"""Every test runs offline, on one thread count, with tensor shapes and types checked."""

import gc
import os
import signal
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LORA_DETOX_CACHE"] = tempfile.mkdtemp(prefix="lora-detox-tests-")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from tests.runs import FinishedRuns

# Before the package is imported anywhere: every annotated function checks its shapes.
install_import_hook(
    [
        f"lora_detox.{name}"
        for name in ("types", "policy", "rollout", "advantages", "update", "scores", "metrics.kl")
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)
# A shell that begins the tests in the background, or nohup, leaves them deaf to these two.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """What the imports made stays out of the garbage collections that runs ask for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> "FinishedRuns":
    """Call it with overrides: the folder of that run, trained once in a session."""
    from tests.runs import FinishedRuns  # noqa: PLC0415 (xdist's own process needs no models)

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # what the workers have in common
        folder = folder.parent
    return FinishedRuns(folder / "finished_runs")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development corpora and models beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no shared/ folder beside the checkout: its corpora and models are not here")
    return folder
