"""Hydra composes once, and `hydra.mode` is heard wherever a user sets it."""

import subprocess
import sys

import pytest

from lora_detox.api import compose_settings

COMMAND = """
import sys
import lora_detox.__main__ as command
from hydra._internal.config_loader_impl import ConfigLoaderImpl

composed = 0
compose = ConfigLoaderImpl.load_configuration
def counted(*given, **named):
    global composed
    composed += 1
    return compose(*given, **named)
ConfigLoaderImpl.load_configuration = counted

def stage(settings):
    print("job", settings.seed)
    return (0.0,)

command.run_stage = stage
status = command.main()
print("composed", composed)
sys.exit(status)
"""
GLOBAL = "# @package _global_\nhydra:\n  mode: MULTIRUN\n"


def lines_of(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def seeds_of(lines):
    return [line for line in lines if line in {"job 1", "job 2"}]


def test_one_run_is_composed_once(tmp_path):
    lines = lines_of(tmp_path, "seed=1")
    assert seeds_of(lines) == ["job 1"]
    assert lines[-1] == "composed 1"


@pytest.mark.parametrize("override", ["hydra.mode=MULTIRUN", "--multirun"])
def test_a_multirun_is_asked_for_by_override_or_option(override, tmp_path):
    assert seeds_of(lines_of(tmp_path, "seed=1,2", override)) == ["job 1", "job 2"]


@pytest.mark.parametrize(
    "options",
    [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"], ["--config-d", "mine"]],
)
def test_a_file_of_the_user_may_set_it(options, tmp_path):
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    (tmp_path / "mine" / "sweep" / "always.yaml").write_text(GLOBAL)
    lines = lines_of(tmp_path, *options, "+sweep=always", "seed=1,2")
    assert seeds_of(lines) == ["job 1", "job 2"]


def test_no_file_of_ours_sets_it(pytestconfig):
    files = list((pytestconfig.rootpath / "conf").rglob("*.yaml"))
    assert len(files) > 100
    setting = [file for file in files if "  mode:" in file.read_text(encoding="utf-8")]
    assert [file.name for file in setting] == []


def test_the_settings_are_the_same_as_by_the_api(tmp_path):
    assert compose_settings(["seed=1"], tmp_path / "run").seed == 1
