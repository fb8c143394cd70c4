"""No Python file of a model folder runs unless the policy's user says so, whatever loads it."""

import io
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from lora_detox import api
from lora_detox.classic import AutoModelForCausalLMWithValueHead
from lora_detox.errors import DetoxError, SettingsError
from lora_detox.evaluation.models import evaluated_models
from lora_detox.export.reload import load_plain
from lora_detox.memory.predict import scorer_config
from lora_detox.policy.adapter import AdapterPlan
from lora_detox.policy.loading import load_policy
from lora_detox.policy.preflight import BackbonePlan
from lora_detox.report.wording import trust_notes
from lora_detox.scores.encoder import Encoder, check_encoder
from lora_detox.scores.loading import check_classifier, load_classifier
from lora_detox.stages.plan import policy_config
from lora_detox.trainers.classifier import _trainable_classifier, classifier_labels
from tests.runs import write_adapter
from tests.traps import LABELS, edit, set_trap, write_model

ADAPTER = AdapterPlan(rank=2, alpha=4.0)
CPU = torch.device("cpu")
COMMAND = ["task=gptj_continuation", "policy=local"]


@pytest.fixture(autouse=True)
def _yes(monkeypatch):
    """Whoever asks is answered."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 100))


def policy(path, *, trusted=False):
    return load_policy(BackbonePlan(path=path, device="cpu", trust_remote_code=trusted), ADAPTER)


def planned(path):
    policy_config(api.compose_settings([*COMMAND, "stage=plan", f"policy.path={path}"]), path)


def evaluated(path):
    one = f"evaluation.models=[{path}]"
    trusting = ["policy.path=elsewhere", "policy.trust_remote_code=true"]
    settings = api.compose_settings([*COMMAND, "stage=evaluate", one, *trusting])
    load_policy(evaluated_models(settings)[0].backbone(settings), ADAPTER)


def reloaded(path):
    request = {"base": path, "revision": None, "adapter": None, "encoder_decoder": False}
    request |= {"dtype": "float32", "device": "cpu", "eos_token_ids": [1]}
    load_plain({**request, "trust_remote_code": False})


def scorer(path):
    check_classifier(path)
    load_classifier(path, device=CPU, dtype=torch.float32, revision=None, key="reward")


def weights_alone(path):
    load_classifier(path, device=CPU, dtype=torch.float32, revision=None, key="judge")


def encoder(path):
    Encoder(check_encoder(path), CPU)


def counted(path):
    scorer_config(path, api.compose_settings([]).reward, "reward")


def start_of_reward_model(path):
    overrides = ["stage=reward_model", f"reward_model.path={path}"]
    settings = api.compose_settings([*overrides, "reward_model.labels=[civil,toxic]"])
    classifier_labels(path, settings)
    _trainable_classifier(path, LABELS, settings.reward_model, CPU)


LOADERS = {
    "policy": (
        policy,
        planned,
        evaluated,
        reloaded,
        AutoModelForCausalLMWithValueHead.from_pretrained,
    ),
    "classifier": (scorer, weights_alone, encoder, counted, start_of_reward_model),
}
CASES = [(kind, load) for kind, loads in LOADERS.items() for load in loads]


@pytest.mark.parametrize("where", ["model", "known", "tokenizer", "generate"])
@pytest.mark.parametrize(("kind", "load"), CASES)
def test_no_file_of_the_folder_runs(tmp_path, kind, load, where):
    folder = write_model(tmp_path / kind, kind)
    mark = set_trap(folder, kind, where)
    if where == "model" and load is not counted:  # which then counts a classifier of usual size
        plain = load is reloaded  # in a process of its own, where nobody reads another message
        with pytest.raises(ValueError if plain else DetoxError, match=r"Python files|custom code"):
            load(str(folder))
    else:
        load(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("where", ["model", "tokenizer"])
@pytest.mark.parametrize("kind", ["policy", "classifier"])
def test_the_trap_works(tmp_path, kind, where):
    folder = write_model(tmp_path / kind, kind)
    mark = set_trap(folder, kind, where)
    if where == "model":
        AutoConfig.from_pretrained(folder)  # asks, and is answered
    else:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert mark.exists()


def test_by_name_alone_a_policy_may_be_code(tmp_path):
    folder = write_model(tmp_path / "policy", "policy")
    plain = policy(str(folder))
    mark = set_trap(folder, "policy", "model")
    with pytest.raises(SettingsError, match=r"policy\.trust_remote_code=true"):
        policy(str(folder))
    assert not mark.exists()
    trusted = policy(str(folder), trusted=True)
    assert mark.exists()
    ids = torch.tensor([[5, 9, 20]])
    for one in (plain, trusted):
        one.model.eval()
    with torch.no_grad():
        logits = [one.backbone(input_ids=ids).logits for one in (plain, trusted)]
    assert torch.equal(*logits)


def test_a_kernel_of_the_hub_is_refused_before_it_is_fetched(tmp_path):
    folder = write_model(tmp_path / "policy", "policy")
    edit(folder / "config.json", attn_implementation="someone/kernel")
    with pytest.raises(SettingsError, match="kernel someone/kernel"):
        policy(str(folder))


def test_a_module_that_an_adapter_names_is_not_imported(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "policy", "policy")
    write_adapter("gptj", tmp_path / "adapter", folder)
    (tmp_path / "trapped.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit(
        tmp_path / "adapter" / "adapter_config.json",
        megatron_config={"a": 1},
        megatron_core="trapped",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DetoxError, match="megatron_config"):
        AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path / "adapter"))
    plan = BackbonePlan(path=str(folder), adapter=str(tmp_path / "adapter"), device="cpu")
    with pytest.raises(SettingsError, match="megatron_config"):
        load_policy(plan, ADAPTER)
    assert not (tmp_path / "ran").exists()


def test_the_warning_stays_with_the_result():
    assert trust_notes({}) == []
    (sentence,) = trust_notes({"trusted_code": "someone/model"})
    assert "Python files of someone/model were run" in sentence


@pytest.mark.slow
def test_the_command_asks_nobody(tmp_path):
    folder = write_model(tmp_path / "policy", "policy")
    mark = set_trap(folder, "policy", "model")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lora_detox",
            *COMMAND,
            f"policy.path={folder}",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        input="yes\n" * 100,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no code of a model folder is run" in done.stderr
    assert not mark.exists()
