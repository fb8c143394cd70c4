"""Every command that README, docs/, recipes and conf/ tell a reader to type.

Those of this package are composed and checked as far as before weights load, those of a newcomer's
first hour are run, scaled down; of the others target, script, module and options have to exist.
"""

import ast
import importlib
import json
import re
import sys
from functools import cache

import pytest

from lora_detox.__main__ import conf_groups, main
from lora_detox.api import compose_settings
from lora_detox.errors import SettingsError
from lora_detox.settings import known_keys, settings_yaml
from lora_detox.settings.compose import open_keys
from tests.docs.pages import FILES, PAGES, TOP, commands_of, name_of
from tests.runs import SMOKE
from tests.sweeps import values_of

COMMANDS = {path: commands_of(path) for path in [*PAGES, *FILES]}
WITH_COMMANDS = [path for path, commands in COMMANDS.items() if commands]
OURS = (["python", "-m", "lora_detox"], ["lora-detox"])
FIRST_HOUR = ("README.md", "docs/start.md", "docs/from_the_lab.md", "docs/sweeping.md")
"""Pages whose commands on the embedded miniature are run."""
OF_RUNS = ("soup=", "run=", "runs=", "chat.run=")
"""Keys that name folders of finished runs, which are looked into before anything loads."""
NOT_INSTALLED = "is not installed"


def overrides_of(words):
    """Overrides of a command of this package; None for another program."""
    for program in OURS:
        if words[: len(program)] == program:
            return words[len(program) :]
    return None


def jobs_of(overrides):
    """The first and the last job of a sweep, or the one job."""
    plain = [word for word in overrides if not word.startswith(("-", "hydra.", "hydra/"))]
    if not {"-m", "--multirun"} & set(overrides):
        return [plain]
    values = [values_of(one) for one in plain]
    return [[some[end] for some in values] for end in (0, -1)]


def write_finished(folder, overrides):
    """What the checks read of a finished run, trained with these overrides."""
    kept = [one for one in overrides if not one.startswith(("stage=", "export.", *OF_RUNS))]
    (folder / "adapter").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(settings_yaml(compose_settings(kept, "nowhere")))
    base = {"base_model_name_or_path": "user/base", "peft_type": "LORA"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(base))
    (folder / "adapter" / "adapter_model.safetensors").touch()
    (folder / "summary.json").write_text("{}")


@cache
def refusal(job, folder):
    """Why a job cannot be begun; None for one that can, and for a package that is not here."""
    for one in job:
        if one.startswith(OF_RUNS):
            for name in one.partition("=")[2].strip("[]").split(","):
                write_finished(folder / name, job)
    try:
        compose_settings(list(job), folder / "run")
    except SettingsError as error:
        return None if NOT_INSTALLED in str(error) else str(error)
    return None


def check_other(words):
    """A command of another program names targets, scripts, modules and options that exist."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        known = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
        assert set(targets) <= set(known), words
    elif words[0] == "bash":
        assert (TOP / words[1]).is_file(), words
        own = [word for word in words[2:] if not word.startswith("hydra.")]
        compose_settings(own, "nowhere")
    elif words[0] == "pytest":
        assert all((TOP / word).exists() for word in words[1:] if not word.startswith("-")), words
    elif words[1] == "-m" and words[2].startswith(("recipes.", "tests.")):
        module = TOP / f"{words[2].replace('.', '/')}.py"
        assert module.is_file(), words
        sources = [*module.parent.glob("*.py"), TOP / "recipes/lab/options.py"]
        text = "".join(path.read_text() for path in sources)
        options = [word.strip("[]") for word in words[3:] if word.strip("[").startswith("--")]
        assert [one for one in options if f'"{one}"' not in text] == [], words


def test_there_are_commands_to_check():
    assert sum(map(len, COMMANDS.values())) > 200
    assert len(WITH_COMMANDS) > 50


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=map(name_of, WITH_COMMANDS))
def test_every_command_of_a_page_is_one_that_works(path, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp()
    monkeypatch.chdir(folder)
    for words in COMMANDS[path]:
        overrides = overrides_of(words)
        if overrides is None:
            check_other(words)
        elif not {"--help", "--version", "doctor"} & set(overrides):
            refusals = [refusal(tuple(job), folder) for job in jobs_of(overrides)]
            assert refusals == [None] * len(refusals), " ".join(words)


ELSEWHERE = re.compile(
    r"(policy|data|reward|judge|stage)=|task=.*_real|resume=|--help|--version|doctor|-m$"
)
"""What wants a model, data or a run that the package does not have; sweeps have tests of theirs."""
SCALED = ("hydra.", "debug=", "seed=")
"""Overrides without which a command is the same at this size."""


def first_hour():
    """Commands of a newcomer that train on what is in the package."""
    for path in PAGES:
        for words in COMMANDS[path] if name_of(path) in FIRST_HOUR else ():
            overrides = overrides_of(words)
            if overrides and not any(map(ELSEWHERE.match, overrides)):
                yield tuple(one for one in overrides if not one.startswith(SCALED))


RUN_HERE = list(dict.fromkeys(first_hour()))
SMALLEST = [
    *SMOKE,
    "algorithm.iterations=1",
    "evaluation.audit=null",
    "evaluation.audit_texts=null",
    "evaluation.resamples=100",
]


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("overrides", RUN_HERE, ids=" ".join)
def test_commands_of_the_first_hour_run(overrides, tmp_path, monkeypatch, capfd):
    command = ["lora_detox", *overrides, *SMALLEST, f"hydra.run.dir={tmp_path}/run"]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0, capfd.readouterr().err
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.parametrize("path", PAGES, ids=map(name_of, PAGES))
def test_python_on_a_page_imports_what_there_is(path):
    for source in re.findall(r"^ *```python\n(.*?)^ *```", path.read_text(), re.DOTALL | re.M):
        indent = len(source) - len(source.lstrip(" "))
        tree = ast.parse(re.sub(rf"^ {{{indent}}}", "", source, flags=re.MULTILINE))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lora_detox"):
                module = importlib.import_module(node.module)
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []


KEY = re.compile(r"[a-z_]+(?:\.[a-z_0-9]+)+(?==)")


@pytest.mark.parametrize("path", PAGES, ids=map(name_of, PAGES))
def test_keys_that_a_page_sets_exist(path):
    """`KEY=VALUE` in the text, where no command would show that a key has another name."""
    known = {*known_keys(), *(key.rsplit(".", 1)[0] for key in known_keys())}
    opened = tuple(f"{key}." for key in open_keys())
    ours = {key.split(".")[0] for key in known} | set(conf_groups())
    spans = re.findall(r"`([^`]+)`", path.read_text())
    keys = {match[0] for span in spans for match in KEY.finditer(span)}
    mine = {key for key in keys if key.split(".")[0] in ours and not key.startswith(opened)}
    assert mine - known == set()
