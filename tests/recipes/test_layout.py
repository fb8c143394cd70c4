"""Recipes stand on the lab alone, and every run of a shell script composes."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_detox.api import compose_settings
from tests.runs import TASKS, write_run
from tests.sweeps import values_of

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SCRIPTS = sorted(RECIPES.glob("*/run.sh"))


def imported(file):
    """Modules that a file imports by name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_a_recipe_imports_from_its_own_folder_and_the_lab_alone():
    files = sorted(RECIPES.glob("*/*.py"))
    assert len(files) > 20
    for file in files:
        assert "sys.path" not in file.read_text(), file
        own = {name.split(".")[1] for name in imported(file) if name.startswith("recipes.")}
        assert own <= {"lab", file.parent.name}, file


def test_every_module_but_the_peers_finds_what_it_imports():
    for file in sorted(RECIPES.glob("*/*.py")):
        if not file.stem.startswith("peer"):  # these are run by an interpreter with TRL 0.11.4
            module = importlib.import_module(f"recipes.{file.parent.name}.{file.stem}")
            assert module.__doc__, f"{file} does not say what it is"


def test_every_recipe_stands_in_the_table():
    table = (RECIPES / "README.md").read_text()
    folders = {file.parent.name for file in RECIPES.glob("*/README.md")}
    assert {name for name in folders if f"]({name})" not in table} == set()


def commands_of(script, shared, folder):
    """Command lines of Python in a shell script, which a recorder in its place writes down."""
    lines, recorder = folder / "lines", folder / "python"
    recorder.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(lines)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    recorder.chmod(0o755)
    named = {"PYTHON": str(recorder), "SHARED": str(shared), "OUT": str(folder / "out")}
    subprocess.run(["bash", str(script), "seed=3"], env=os.environ | named, check=True)
    return [json.loads(line) for line in lines.read_text().splitlines()]


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.parent.name for script in SCRIPTS])
def test_every_run_of_a_script_composes(script, shared, tmp_path):
    commands = commands_of(script, shared, tmp_path)
    runs = [words for _, name, *words in commands if name == "lora_detox"]
    assert runs
    for words in runs:
        overrides = [word for word in words if not word.startswith(("-", "hydra.", "hydra/"))]
        for run in (Path(word[4:]) for word in overrides if word.startswith("run=")):
            (architecture,) = (one for one, task in TASKS.items() if run.name.endswith(task))
            write_run(run, architecture)  # export wants a finished run
        sweep = "--multirun" in words
        for end in (0, -1) if sweep else (0,):
            composed = [values_of(word)[end] if sweep else word for word in overrides]
            settings = compose_settings(composed)
            assert settings.policy.dtype.value == "auto"
            assert settings.seed == 3
