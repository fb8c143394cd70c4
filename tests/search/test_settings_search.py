"""Every configuration trains two iterations of a tiny model, or is refused by the key."""

import json
import re
import shutil
import traceback
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, settings
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lora_detox.__main__ import conf_dir
from lora_detox.errors import DetoxError, SettingsError
from lora_detox.settings import register_schema, settings_from
from lora_detox.stages import run_stage
from tests.search.drawing import DRAWS, TRAINED, configurations

pytestmark = [pytest.mark.slow, pytest.mark.training]

BASE = [
    "debug=smoke",
    "threads=1",
    "data.limit=60",
    "evaluation.test_prompts=4",
    "evaluation.validation_prompts=4",
    "evaluation.resamples=20",
    "generation.response_tokens=[4,6]",
    "algorithm.rollout_batch_size=4",
    "algorithm.microbatch_size=4",
]
TASKS = ("gptj_continuation", "flan_summary")
counts: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def told():
    """The counts that docs/faults.md quotes."""
    yield
    print("\nsettings drawn:", dict(counts))


@pytest.fixture(scope="module")
def composed():
    register_schema()
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        return {
            task: compose(config_name="config", overrides=[f"task={task}", *BASE]) for task in TASKS
        }


def names_a_key(message, drawn):
    """Whether a refusal names one of the keys that were drawn, or the group that it is in."""
    groups = {key.rsplit(".", depth)[0] for key in drawn for depth in range(key.count(".") + 1)}
    return any(re.search(rf"(?<![\w.]){re.escape(one)}(?![\w])", message) for one in groups)


def checked(config, drawn, folder):
    """The settings of a configuration, or the error that refuses it."""
    config = config.copy()
    with open_dict(config):
        config.run_dir = str(folder)
    try:
        for key, value in drawn.items():
            try:
                OmegaConf.update(config, key, value, merge=False)
            except OmegaConfBaseException as error:  # as the command line names the override
                return SettingsError(f"{key}={value}: {error}")
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        return SettingsError(str(error))
    try:
        return settings_from(config)
    except DetoxError as error:
        return error


def refused_by_run(checked_settings):
    """Run a stage; the message of the error that it ends with, None where it trains."""
    try:
        run_stage(checked_settings)
    except DetoxError as error:
        return str(error)
    return None


def outcome_of(config, drawn, folder):
    """What becomes of a configuration, and what is wrong with that; None where nothing is."""
    try:
        result = checked(config, drawn, folder)
        if isinstance(result, DetoxError):
            named = names_a_key(str(result), drawn)
            return "refused by the checks", None if named else str(result)
        if counts["trained"] + counts["refused at the start"] >= TRAINED:
            return "checked", None
        refusal = refused_by_run(result)
        if refusal is not None:
            named = names_a_key(refusal, drawn)
            return "refused at the start", None if named else refusal
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        stopped = json.loads((folder / "summary.json").read_text())["stopped"]
        asked = stopped in ("target", "budget")  # budget.target, budget.patience
        whole = asked or rows[-1]["iteration"] == result.algorithm.iterations
        return "trained", None if whole else f"ended after {rows[-1]['iteration']}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "other error", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def test_every_configuration_trains_or_is_refused_by_a_key(composed, tmp_path_factory):
    faults = []

    @settings(
        max_examples=DRAWS,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(drawn=configurations)
    def draw(drawn):
        task = TASKS[sum(counts.values()) % 2]
        folder = tmp_path_factory.getbasetemp() / "drawn"
        shutil.rmtree(folder, ignore_errors=True)
        outcome, fault = outcome_of(composed[task], drawn, folder)
        counts[outcome] += 1
        if fault is not None:
            faults.append(f"{task} {drawn}: {outcome}: {fault[:500]}")
            print("FAULT", ascii(faults[-1]))

    draw()
    assert not faults, "\n".join(faults)
