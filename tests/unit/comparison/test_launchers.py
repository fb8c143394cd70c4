"""Hydra's launchers run our jobs in processes of their own, each on a GPU of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_detox.__main__ import lost_job
from lora_detox.comparison.jobs import read_jobs
from tests.runs import ONE_RUN

ROOT = Path(__file__).resolve().parents[3]

TELLS_ITS_GPU = """
import os
from pathlib import Path


def score(completions, **columns):
    Path(__file__).with_name(f"gpu_{os.getpid()}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return [float(len(one)) for one in completions]
"""


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("joblib.externals.loky.process_executor", "TerminatedWorkerError"),
        ("submitit.core.utils", "UncompletedJobError"),
    ],
)
def test_a_job_that_was_killed_is_told_in_one_sentence(package, name):
    killed = getattr(pytest.importorskip(package), name)("killed\nand much more")
    sentence = lost_job(killed)
    assert "lost with its process" in sentence
    assert "killed" in sentence
    assert "much more" not in sentence
    assert lost_job(ValueError("a fault of ours")) is None


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin"), [("processes", "joblib_launcher"), ("jobs", "submitit_launcher")]
)
def test_jobs_run_beside_each_other_and_a_failed_one_is_told(launcher, plugin, tmp_path):
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}")
    reward, sweep = tmp_path / "reward.py", tmp_path / "sweep"
    reward.write_text(TELLS_ITS_GPU)
    overrides = ["task=gptj_continuation", *ONE_RUN, "algorithm.iterations=1", "seed=1,2,-1"]
    overrides += [f"reward.function={reward}:score", f"hydra.sweep.dir={sweep}"]
    done = subprocess.run(
        [sys.executable, "-m", "lora_detox", "-m", f"hydra/launcher={launcher}", *overrides],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "5,7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr  # by the third job
    assert "seed" in done.stderr
    errors = [job.error for job in read_jobs(sweep)]
    assert errors[:2] == [None, None]
    assert "seed" in errors[2]
    assert sorted(path.read_text() for path in tmp_path.glob("gpu_*")) == ["5", "7"]
    stored = json.loads((sweep / "sweep.json").read_text())
    assert [len(one["candidates"]) for one in stored["comparisons"]] == [2]
    assert len(stored["failed"]) == 1
