"""conf/hydra/sweeper/optuna.yaml has the defaults of the schema; nonsense is refused."""

from dataclasses import asdict

import pytest
import yaml

from lora_detox.__main__ import conf_dir
from lora_detox.errors import SettingsError
from lora_detox.tuning.options import StudyOptions, study_options


def test_the_file_has_the_defaults():
    text = (conf_dir() / "hydra/sweeper/optuna.yaml").read_text()
    values = yaml.safe_load(text)
    assert values.pop("_target_") == "hydra_plugins.lora_detox_optuna.OptunaSweeper"
    assert values == asdict(StudyOptions())
    assert study_options(values) == StudyOptions()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, r"hydra.sweeper.trials: got 0; want a whole number, 1 or more"),
        ({"trials": 2.5}, "want a whole number"),
        ({"trials": True}, "want a whole number"),
        ({"at_once": -1}, "hydra.sweeper.at_once"),
        ({"seed": "x"}, "hydra.sweeper.seed"),
        ({"n_trials": 5}, r"hydra.sweeper.n_trials: there is no such key; did you mean .*trials"),
        ({"sampler": "cmaes"}, "want one of tpe, nsga2, random"),
        ({"measured_on": "train"}, "want one of validation, test"),
        ({"prune": True}, "hydra.sweeper.prune: got True"),
        ({"prune": {"fraction": 0}}, r"prune.fraction: got 0; want a number in \(0, 1\]"),
        ({"prune": {"fraction": 1.5}}, "prune.fraction"),
        ({"prune": {"least": 0}}, "prune.least"),
        ({"prune": {"enabled": "yes"}}, "want true or false"),
        ({"prune": {"afer": 2}}, "did you mean hydra.sweeper.prune.after"),
        ({"storage": 3}, "hydra.sweeper.storage"),
        ({"name": " "}, "hydra.sweeper.name"),
    ],
)
def test_nonsense_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        study_options(values)
