"""The notebook's cells run in their order, at a small size, in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "recipes/notebook/flan_t5_lab.ipynb"
SIZE = [
    "threads=1",
    "algorithm.iterations=2",
    "algorithm.rollout_batch_size=8",
    "algorithm.minibatch_size=8",
    "budget.controller.start_rollouts=1",
    "evaluation.every=2",
    "evaluation.validation_prompts=8",
    "evaluation.test_prompts=8",
    "evaluation.audit=null",
]


def code_cells():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.training
@pytest.mark.slow
def test_its_cells_run_one_after_the_other(tmp_path):
    cells = code_cells()
    assert cells[0].count("\nSIZE = []") == 1
    cells[0] = cells[0].replace("\nSIZE = []", f"\nSIZE = {SIZE!r}")
    program = tmp_path / "cells.py"
    program.write_text("\n\n".join(cells), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "toxicity 0.0" in done.stdout  # of the courtesy
    assert "change between" in done.stdout
    assert (tmp_path / "runs/notebook/ppo/adapter/adapter_model.safetensors").is_file()
    assert done.stdout.rstrip().splitlines()[-1]  # what the adapter wrote in plain PEFT
