"""Scripts of recipes say what they need (PEP 723), and run by path as they do by module."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = sorted(
    path for path in ROOT.glob("recipes/*/*.py") if '__name__ == "__main__"' in path.read_text()
)
BLOCK = re.compile(r"^# /// script\n((?:^#(?:| .*)\n)+?)^# ///$", re.MULTILINE)
NAMES = {"yaml": "pyyaml", "hydra": "hydra-core"}
"""Module -> distribution, where the names differ."""


def header_of(path):
    """The table in the header; None for a script without one or with several."""
    blocks = BLOCK.findall(path.read_text())
    if len(blocks) != 1:
        return None
    return tomllib.loads("".join(f"{line[2:]}\n" for line in blocks[0].splitlines()))


def packages(path, seen):
    """What a script and the recipes' modules that it imports take from other distributions."""
    if path in seen or not path.is_file():
        return
    seen.add(path)
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            top = module.partition(".")[0]
            if top == "recipes":
                yield from packages(ROOT / f"{module.replace('.', '/')}.py", seen)
            elif top not in sys.stdlib_module_names:
                yield NAMES.get(top, top).replace("_", "-")


def named(requirements):
    return {Requirement(text).name.lower().replace("_", "-") for text in requirements}


def test_there_are_scripts_to_check():
    assert len(SCRIPTS) > 30


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_names_what_it_imports(path):
    header = header_of(path)
    assert header is not None, "want one block '# /// script'"
    assert SpecifierSet(header["requires-python"]) == SpecifierSet(PROJECT["requires-python"])
    own = named(header["dependencies"])
    if "lora-detox" in own:
        source = header["tool"]["uv"]["sources"]["lora-detox"]
        assert (path.parent / source["path"]).resolve() == ROOT
        assert source["editable"]  # recipes are imported from the checkout
        own |= named(PROJECT["dependencies"])
    assert set(packages(path, set())) <= own


def test_what_a_header_does_not_name_is_noticed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import pandas\nfrom recipes.benchmarks import iteration\n")
    assert {"pandas", "lora-detox", "tokenizers"} <= set(packages(script, set()))
    assert header_of(script) is None
    script.write_text('# /// script\n# dependencies = ["pandas"]\n# ///\nimport pandas\n')
    assert header_of(script) == {"dependencies": ["pandas"]}


def test_no_module_hides_one_of_the_standard_library():
    # The folder of a script that runs by its path comes first where modules are looked for.
    names = {path.stem for path in ROOT.glob("recipes/*/*.py")}
    assert "run" in names
    assert sorted(names & set(sys.stdlib_module_names)) == []


@pytest.mark.parametrize("name", ["layers", "which_lora"])
def test_a_script_runs_by_its_path_too(name, tmp_path):
    command = [sys.executable, "-P", str(ROOT / f"recipes/{name}/run.py"), "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout
