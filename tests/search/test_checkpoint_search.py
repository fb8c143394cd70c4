"""Bytes of a checkpoint or of a run directory that change: skipped by name, identical, or refused.

The fault table: what was injected, and what came of it. One command prints it:

    python -m pytest tests/search/test_checkpoint_search.py -s -q
"""

import json
import os
import random
import shutil
import traceback
from collections import Counter

import pytest

from lora_detox.api import run
from lora_detox.errors import DetoxError
from tests.fault.test_resume import result_of
from tests.runs import SMOKE

pytestmark = [pytest.mark.slow, pytest.mark.training]

OPTIONS = [
    *SMOKE,
    "task=gptj_continuation",
    "algorithm.iterations=3",
    "checkpoint.keep=9",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "evaluation.resamples=20",
    "algorithm.rollout_batch_size=4",
    "algorithm.ppo_epochs=1",
]
ROUNDS = int(os.environ.get("LORA_DETOX_FAULTS", "1"))
"""How often each kind of fault is injected into each file."""


def flipped(content, draw):
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def cut(content, draw):
    return content[: draw.randrange(len(content))]


def garbage(content, draw):
    return draw.randbytes(min(len(content), 200))


KINDS = {
    "one bit flipped": flipped,
    "cut": cut,
    "emptied": lambda content, draw: b"",
    "garbage": garbage,
    "JSON nested without end": lambda content, draw: b"[" * 100_000,
    "removed": None,
}
table: dict[tuple[str, str], Counter[str]] = {}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was killed after its second checkpoint of three, and what it would have given."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    run(OPTIONS, folder)
    whole = result_of(folder)
    for name in ("summary.json", "report.html", "samples.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "iteration_000003")
    return folder, whole


@pytest.fixture(scope="module", autouse=True)
def printed():
    """The fault table, of all that ran."""
    yield
    print("\n| file | fault | outcome | times |\n|---|---|---|---|")
    for (name, kind), outcomes in table.items():
        for outcome, times in outcomes.items():
            print(f"| {name} | {kind} | {outcome} | {times} |")


def files_of(folder):
    """Files of a run directory, those of its newest checkpoint first; events of trackers aside."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts and not path.name.startswith(".")
    )
    return [name for name in names if "iteration_000001" not in name]


def is_made_anew(name):
    """Files that a resumed run writes again from its seed, whatever they hold."""
    return name.startswith("tiny_model/")


def outcome_of(folder, whole, name, capsys):
    """What a resumed run comes to, and what is wrong with that."""
    capsys.readouterr()
    try:
        run([*OPTIONS, "resume=true"], folder)
    except DetoxError as error:
        return "refused by name", None if name.split("/")[-1] in str(error) else str(error)
    except Exception as error:
        return "other error", "".join(traceback.format_exception(error)[-3:])
    output = capsys.readouterr().out
    fault = None if result_of(folder) == whole else "another result"
    if name.startswith("checkpoints/") and "resumed after iteration 1" in output:
        skipped = "iteration_000002" in output
        return "skipped, named, identical", fault if skipped else f"skipped unnamed: {output}"
    return "identical", fault


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_skipped_identical_or_refused(begun, tmp_path, capsys, kind):
    folder, whole = begun
    draw, faults = random.Random(kind), []
    names = files_of(folder)
    if ROUNDS == 1 and kind != "one bit flipped":
        names = [name for name in names if not is_made_anew(name)]
    for name in names * ROUNDS:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "run")
        file = tmp_path / "run" / name
        if KINDS[kind] is None:
            file.unlink()
        else:
            file.write_bytes(KINDS[kind](file.read_bytes(), draw))
        outcome, fault = outcome_of(tmp_path / "run", whole, name, capsys)
        table.setdefault((name, kind), Counter())[outcome] += 1
        if fault is not None:
            faults.append(f"{name}: {kind}: {outcome}: {fault[:600]}")
    assert not faults, "\n".join(faults)


def test_the_newest_checkpoint_is_used_where_nothing_was_changed(begun, tmp_path, capsys):
    folder, whole = begun
    shutil.copytree(folder, tmp_path / "run")
    assert outcome_of(tmp_path / "run", whole, "checkpoints/", capsys) == ("identical", None)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["iterations"] == 3
