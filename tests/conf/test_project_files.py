"""Files for others' tools say what the project is: citation, container, workflows, issue forms."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lora_detox

ROOT = Path(__file__).resolve().parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == lora_detox.__version__
    assert {"title", "message", "authors", "license"} <= set(citation)


def test_workflows_run_what_a_person_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    commands = [s["run"] for job in workflow["jobs"].values() for s in job["steps"] if "run" in s]
    assert ".ci/run" in commands
    matrix = workflow["jobs"]["ranges"]["strategy"]["matrix"]["include"]
    made = {one["target"] for one in matrix}
    assert "make ${{ matrix.target }}" in commands
    for command in commands:
        if command.startswith("make ") and "${{" not in command:
            made |= set(command.split()[1:])
    assert {"test-fast", "smoke", "test-oldest", "test-newest"} <= made
    assert made <= TARGETS
    assert set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci/run").read_text(), re.M)) <= TARGETS


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_an_issue_form_has_what_the_site_asks_for(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_container_copies_what_is_there_and_pins_what_it_installs():
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert {"lora_detox", "conf", "pyproject.toml"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)
    assert lines.index("USER user") < lines.index('ENTRYPOINT ["lora-detox"]')
    assert any(line.startswith("ENTRYPOINT") for line in lines)


def test_every_version_of_python_that_is_claimed_is_run_by_a_workflow():
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    run = set(re.findall(r'"(3\.\d+)"', text))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    kinds = " ".join(project["classifiers"])
    claimed = set(re.findall(r"Python :: (3\.\d+)", kinds))
    assert project["requires-python"].removeprefix(">=") in claimed
    assert claimed <= run


def test_types_are_for_others_too():
    assert (ROOT / "lora_detox" / "py.typed").is_file()
