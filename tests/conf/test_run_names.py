"""What a run's folder is called where nobody names it: two starts of one second differ."""

import subprocess
import sys
from pathlib import Path

COMMAND = """
import sys
from pathlib import Path
import lora_detox.__main__ as command
from datetime import datetime

def stage(settings):
    folder = Path(settings.run_dir)
    assert (folder / ".run.lock").exists()
    (folder / "config.yaml").touch()
    print(folder.relative_to(Path.cwd()))
    return (0.0,)

command.run_stage = stage
sys.exit(command.main())
"""
FROZEN = """
from omegaconf import OmegaConf
import hydra.core.utils
real = OmegaConf.register_new_resolver
def register(name, resolver, **options):
    real(name, (lambda pattern: "then") if name == "now" else resolver, **options)
OmegaConf.register_new_resolver = register
"""
"""The clock stands still."""


def names_of(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FROZEN + COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("job ")]


def test_every_start_has_a_folder_of_its_own(tmp_path):
    assert names_of(tmp_path) == ["runs/flan_summary/then"]
    assert names_of(tmp_path) == ["runs/flan_summary/then-2"]
    sweep = ["--multirun", "seed=1,2"]
    jobs = [f"runs/sweeps/then/{job}_flan_summary_seed{job + 1}" for job in (0, 1)]
    assert names_of(tmp_path, *sweep) == jobs
    assert names_of(tmp_path, *sweep) == [f"{job}-2" for job in jobs]


def test_a_name_that_was_given_is_kept_or_refused(tmp_path):
    assert names_of(tmp_path, "hydra.run.dir=mine") == ["mine"]
    again = [sys.executable, "-c", COMMAND, "hydra.run.dir=mine"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mine already holds another run (config.yaml)" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["config.yaml"]


def test_runs_that_are_compared_are_of_no_task(tmp_path):
    assert names_of(tmp_path, "stage=compare", "runs=[a,b]") == ["runs/compare/then"]
