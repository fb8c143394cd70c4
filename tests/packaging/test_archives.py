"""What `make package` and `make test-oldest` look for is found, and this tree has no fault."""

import ast
import re
import sys
import tarfile
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.packaging import check, oldest

WANTED = {"lora_detox/__init__.py", "lora_detox/conf/config.yaml", "hydra_plugins/one/__init__.py"}
METADATA = {"lora_detox-1.dist-info/METADATA", "lora_detox-1.dist-info/licenses/LICENSE"}
SDIST = {
    "lora_detox/__init__.py",
    "conf/config.yaml",
    "hydra_plugins/one/__init__.py",
    *("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO"),
}


def test_the_archives_of_this_tree_have_no_fault(tmp_path):
    pytest.importorskip("hatchling", reason="sdist and wheel are built with hatchling")
    wheel, faults = check.archives(tmp_path)
    assert faults == []
    files = set(check.wheel_files(wheel))
    assert {"lora_detox/py.typed", "lora_detox/conf/config.yaml"} <= files
    assert any(name.endswith(".safetensors") for name in files)


def test_what_a_wheel_lacks_and_has_besides_is_told():
    assert check.faults_of_wheel(WANTED | METADATA, WANTED) == []
    some = WANTED - {"lora_detox/conf/config.yaml"} | {"tests/one.py", "lora_detox/data.csv"}
    assert check.faults_of_wheel(some, WANTED) == [
        "wheel lacks lora_detox/conf/config.yaml",
        "wheel has lora_detox/data.csv",
        "wheel has tests/one.py",
        "wheel lacks its LICENSE",
    ]


def test_what_an_sdist_lacks_and_has_besides_is_told():
    assert check.faults_of_sdist(SDIST, WANTED) == []
    some = SDIST - {"conf/config.yaml", "LICENSE"} | {"recipes/README.md", "shared/rows.jsonl"}
    assert check.faults_of_sdist(some, WANTED) == [
        "sdist lacks LICENSE",
        "sdist lacks conf",
        "sdist lacks lora_detox/conf/config.yaml",
        "sdist has recipes",
        "sdist has shared",
    ]


def test_wheels_are_compared_by_what_is_in_their_files(tmp_path):
    files = []
    for name, text in (("one", "a"), ("two", "b")):
        with zipfile.ZipFile(tmp_path / f"{name}.whl", "w") as archive:
            archive.writestr("lora_detox/same.py", "same")
            archive.writestr("lora_detox/other.py", text)
            archive.writestr(f"lora_detox/{name}.py", "")
            archive.writestr("lora_detox-1.dist-info/RECORD", name)
        files.append(check.wheel_files(tmp_path / f"{name}.whl"))
    names = [line.partition(":")[0] for line in check.differences(*files)]
    assert names == ["lora_detox/one.py", "lora_detox/other.py", "lora_detox/two.py"]
    assert check.differences(files[0], files[0]) == []


def test_paths_of_an_sdist_are_those_below_its_folder(tmp_path):
    (tmp_path / "one.py").touch()
    with tarfile.open(tmp_path / "sdist.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "one.py", "lora_detox-1/lora_detox/one.py")
    assert check.sdist_files(tmp_path / "sdist.tar.gz") == {"lora_detox/one.py"}


def project():
    return tomllib.loads(oldest.PYPROJECT.read_text(encoding="utf-8"))["project"]


def test_the_oldest_versions_are_the_lower_bounds_of_pyproject():
    table = project()
    pinned = oldest.lowest(table)
    for text in table["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[requirement.name]), text
        assert f">={pinned[requirement.name]}" in text
    assert {"optuna", "gguf", "gradio"} <= set(pinned)
    assert not {"vllm", "wandb"} & set(pinned)


def test_a_dependency_without_a_lower_bound_is_refused():
    extras = {name: [] for name in oldest.EXTRAS}
    table = {"dependencies": ["torch"], "optional-dependencies": extras}
    with pytest.raises(SystemExit, match="torch: has no lower bound"):
        oldest.lowest(table)


def test_make_installs_versions_inside_the_bounds():
    lines = (check.ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if re.match(r"[\w.-]+==", line))
    for text in [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


DISTRIBUTIONS = {"yaml": "pyyaml", "hydra": "hydra-core", "lora-detox": None}
"""Module -> distribution, where the names differ."""

WITH_TORCH = {"triton"}
"""Brought and pinned by PyTorch's CUDA builds, imported on CUDA devices alone (decision 0025)."""


def test_what_is_imported_is_declared():
    table = project()
    extras = [one for some in table["optional-dependencies"].values() for one in some]
    declared = {Requirement(text).name.lower() for text in [*table["dependencies"], *extras]}
    imported = {name for name in check.sources() if name.endswith(".py")}
    tops = {top for name in imported for top in imports_of((check.ROOT / name).read_text())}
    names = {DISTRIBUTIONS.get(name, name) for name in {top.replace("_", "-") for top in tops}}
    declared = {name.replace("_", "-") for name in declared}
    assert {"torch", "hydra-core", "markupsafe"} <= names
    assert names - {None} - declared == WITH_TORCH


def imports_of(text):
    """Packages outside the standard library that a module imports."""
    for node in ast.walk(ast.parse(text)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        tops = {module.partition(".")[0] for module in modules}
        yield from tops - set(sys.stdlib_module_names)
