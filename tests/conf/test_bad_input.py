"""Bad input ends with one clear message before any weight loads, and leaves nothing behind."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from lora_detox.__main__ import main
from lora_detox.embedded import embedded_path
from lora_detox.run import build
from lora_detox.settings import RENAMED, known_keys

ROWS = [{"prompt": f"Well, listen to number {i}", "toxicity": i / 60} for i in range(60)]
SPLIT_ROWS = {"rows.jsonl": ROWS, "empty.jsonl": [], "other.jsonl": [{"titel": "x", "score": 1}]}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with data files, a classifier with nameless labels, and a run of someone else."""
    for name, rows in SPLIT_ROWS.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(embedded_path("reward"), tmp_path / "nameless")
    config = tmp_path / "nameless" / "config.json"
    content = json.loads(config.read_text())
    content["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    content["label2id"] = {"LABEL_0": 0, "LABEL_1": 1}
    config.write_text(json.dumps(content))
    shutil.copytree(embedded_path("reward"), tmp_path / "foreign")  # every text is the same to it
    weights = load_file(tmp_path / "foreign" / "model.safetensors")
    for name in ("classifier.out_proj.weight", "classifier.out_proj.bias"):
        weights[name].zero_()
    save_file(weights, tmp_path / "foreign" / "model.safetensors", {"format": "pt"})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "metrics.jsonl").write_text('{"iteration": 1}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refuse(workplace, monkeypatch, capfd):
    """Run the command line in this process; the message, once it is known to have left nothing."""

    def run(*overrides):
        def no_weights(*_, **__):
            raise AssertionError("the policy's weights were loaded")

        monkeypatch.setattr(build, "load_policy", no_weights)
        if not any(override.startswith("hydra.") for override in overrides):
            overrides += ("hydra.run.dir=run",)
        monkeypatch.setattr(sys, "argv", ["lora_detox", *overrides])
        before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
        assert main() == 2
        message = capfd.readouterr().err
        assert "Error executing job" not in message  # all overrides, which a reader has typed
        assert "Traceback" not in message
        assert "\nerror: " in "\n" + message
        after = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
        assert after == before
        return message

    return run


LOCAL = ("task=gptj_continuation", "data=local", "data.path=rows.jsonl")
COMPOSING = {
    "unknown key": (["algorithm.leraning_rate=1"], "did you mean algorithm.learning_rate"),
    "unknown term": (["reward.terms.rogue=1"], "did you mean reward.terms.rouge"),
    "added key": (
        ["+algorithm.leraning_rate=1"],
        "leraning_rate: there is no such key; did",
    ),
    "key of another method": (
        ["algorithm=trl_dpo", "task=gptj_continuation", "algorithm.gae_lambda=0.5"],
        "algorithm.gae_lambda: algorithm=trl_dpo does not read it",
    ),
    "unknown top key": (["polcy=mini"], "polcy: did you mean policy"),
    "unknown option": (["policy=flan_t6"], "'policy/flan_t6'.*flan_t5_base"),
    "unknown stage": (["stage=detx"], r"stage.*\n?.*'detx', expected one of \[detox"),
    "wrong type": (["algorithm.iterations=many"], "algorithm.iterations.*\n.*'many'.*Integer"),
    "unknown choice": (["algorithm.kl.charge=l2"], "'l2', expected one of .*kl, abs, mse, full"),
    "no value": (["policy=local"], "policy.path: no value given"),
    "minibatch": (
        ["algorithm.minibatch_size=5"],
        r"algorithm.minibatch_size=5 does not divide algorithm.rollout_batch_size=\d+; want one of",
    ),
    "microbatch": (
        ["algorithm.minibatch_size=16", "algorithm.microbatch_size=3"],
        r"algorithm.microbatch_size=3 does not divide algorithm.minibatch_size=16",
    ),
    "full weights, quantized": (
        ["adapter=none", "quantization=int8"],
        "adapter=none asks for full-weight training, but quantization=int8",
    ),
    "full weights": (["adapter=none"], "adapter=none asks for full-weight training"),
    "negative": (["algorithm.learning_rate=-1"], "algorithm.learning_rate: got -1.0, want a num"),
    "no number": (
        ["algorithm.expert.gamma=nan"],
        "algorithm.expert.gamma: got nan, want a number from 0 to 1",
    ),
    "probe texts": (
        ["judge.probe_texts={civil: [], toxic: [idiot]}"],
        r"judge\.probe_texts\.civil: got \[\], want a list of at least one text",
    ),
    "tracker": (["tracker.names=[banana]"], "tracker.names: got banana, want wandb or trackio"),
    "template": (["task.template=nothing"], "task.template: got 'nothing'.*{prompt}"),
    "lengths": (["generation.response_tokens=[9,3]"], "generation.response_tokens: got"),
    "taken folder": (
        ["hydra.run.dir=taken"],
        r"hydra.run.dir: taken already holds another run \(metrics.jsonl\).*resume=true",
    ),
}
BUILDING = {
    "device": (["device=banana"], "device=banana cannot be used here"),
    "missing file": (["data.path=none.jsonl"], "no such file or folder: none.jsonl.*data.path"),
    "missing data": (["data.path=./none.jsonl"], "no such file .*: ./none.jsonl.*`data.path`"),
    "missing test set": (["data.test_path=./none.jsonl"], "./none.jsonl.*`data.test_path`"),
    "missing policy": (["policy.path=./none"], "policy.path: ./none: there is no such folder"),
    "missing adapter": (["policy.adapter=/none/a"], "policy.adapter: /none/a: there is no such"),
    "missing reward": (["reward.path=./none"], "./none: there is no such folder.*`reward.path`"),
    "missing fluency": (
        ["reward.terms.fluency=1", "reward.fluency.path=./none"],
        "./none: there .*`reward.fluency.path`",
    ),
    "missing member": (["judge.ensemble=[./none]"], "./none: there is no.*`judge.ensemble`"),
    "missing encoder": (["evaluation.encoder=./none"], "./none: there.*`evaluation.encoder`"),
    "missing words": (
        ["evaluation.word_list=./none"],
        "./none cannot be read: no such.*word_list`",
    ),
    "missing audit": (["evaluation.audit=./none.csv"], "no such .*: ./none.csv.*audit`"),
    "missing plan": (["stage=plan", "policy.path=./none"], "policy.path: ./none: there is no"),
    "missing model": (
        ["stage=evaluate", "evaluation.models=[embedded:policy,./none]"],
        "evaluation.models: ./none: there is no such folder",
    ),
    "missing adapter of a model": (
        ["stage=evaluate", "evaluation.models=[{adapter: ./none}]"],
        "evaluation.models: ./none: there is no such folder",
    ),
    "missing classifier": (
        ["stage=reward_model", "reward_model.path=./none"],
        "./none: there is no such folder.*`reward_model.path`",
    ),
    "empty data": (["data.path=empty.jsonl"], "empty.jsonl.*data.path"),
    "columns": (["data.path=other.jsonl"], "titel.*data.fields.prompt|data.fields.prompt.*titel"),
    "all filtered away": (["data.min_toxicity=0.99"], "0.99.*data.min_toxicity"),
    "policy hub": (["policy.path=no/where"], "policy.path: cannot read 'no/where'.*local folder"),
    "data hub": (["data.path=no/where"], "no/where.*data=local data.path=FILE"),
    "reward hub": (["reward.path=no/where"], "no/where.*`reward.path=FOLDER`"),
    "judge hub": (["judge.path=no/where"], "no/where.*`judge.path=FOLDER`"),
    "labels": (
        ["reward.path=nameless"],
        "labels are 0=LABEL_0, 1=LABEL_1; name the civil one.*`reward.label`",
    ),
    "sign of the reward": (
        ["reward.label=hate"],
        "the sign of the score of embedded:reward@.* is wrong .*nothate.*`reward.label`",
    ),
    "language of the reward": (
        ["reward.path=foreign"],
        "does not tell civil from toxic text.*are English: for a classifier of another language.*"
        r"`reward\.probe_texts={civil: \[TEXT",
    ),
    "probe texts that are as foreign": (
        ["reward.path=foreign", "reward.probe_texts={civil: [a b], toxic: [c d]}"],
        "does not tell civil from toxic text.*are those of `reward.probe_texts`",
    ),
    "sign of the judge": (["judge.label=toxic"], "the sign of the score .*`judge.label`"),
    "fp16 T5": (
        ["policy.dtype=float16", "task.miniature=t5"],
        "policy.dtype=float16 with a T5 model",
    ),
    "target": (
        ["adapter.targets=[banana]"],
        "adapter.targets: banana matches no linear module .*candidates: .*q_proj",
    ),
    "scope": (["adapter.scope=last_99"], r"adapter.scope=last_99: the model has \d layers"),
}


@pytest.mark.parametrize("case", COMPOSING)
def test_what_cannot_compose(refuse, monkeypatch, case):
    overrides, pattern = COMPOSING[case]
    real = importlib.import_module

    def no_stage(name, *arguments):
        assert not name.startswith("lora_detox.stages"), f"{name} was imported"
        return real(name, *arguments)

    monkeypatch.setattr("importlib.import_module", no_stage)
    assert_says(refuse(*overrides), pattern)


@pytest.mark.parametrize("case", BUILDING)
def test_what_files_and_configurations_already_show(refuse, case):
    overrides, pattern = BUILDING[case]
    assert_says(refuse(*LOCAL, *overrides), pattern)


def test_a_smoke_run_that_is_refused_leaves_no_tiny_model(refuse):
    assert_says(refuse(*LOCAL, "debug=smoke", "data.min_toxicity=0.99"), "data.min_toxicity")


def test_packages_that_are_not_installed_are_named(refuse, monkeypatch):
    found = importlib.util.find_spec
    missing = {"wandb", "bitsandbytes"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n, *a: None if n in missing else found(n, *a)
    )
    assert_says(refuse("tracker=wandb"), r"pip install 'lora-detox\[trackers\]'")
    assert_says(refuse("quantization=nf4"), "=nf4: .*bitsandbytes is not installed.*wheels")


def assert_says(message, pattern):
    assert re.search(pattern, message, re.DOTALL), message


HEAVY = """
import sys
from lora_detox.__main__ import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
slow = "torch transformers peft datasets numpy gradio pyarrow huggingface_hub"
heavy = set(slow.split()) & sys.modules.keys()
print("STATUS", status or 0, "HEAVY", sorted(heavy))
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["--cfg", "job"], 0),
        (["algorithm.minibatch_size=5"], 2),
        (["adapter=none", "quantization=nf4"], 2),
        (["stage=chat", "chat.run=nowhere"], 2),
        (["data=local", "data.path=./nowhere.jsonl"], 2),
        (["policy=local", "policy.path=/nowhere/t5"], 2),
        (["policy.adapter=~/nowhere/adapter"], 2),
        (["judge=local", "judge.path=./nowhere"], 2),
        (["stage=evaluate", "evaluation.models=[./nowhere]"], 2),
        (["stage=evaluate", "evaluation.models=[{path: embedded:policy, adapter: ./no}]"], 2),
        (["evaluation.encoder=./nowhere"], 2),
        (["stage=plan", "policy.path=./nowhere"], 2),
        (["stage=chat", "chat.interface=browser", "chat.strength=2"], 2),
    ],
)
def test_help_and_wrong_settings_import_nothing_heavy(arguments, status, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"STATUS {status} HEAVY []", done.stdout + done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_wrong_column_of_text_imports_nothing_heavy(suffix, tmp_path):
    rows = {"jsonl": '{"text": "a"}\n', "csv": "text\na\n"}
    (tmp_path / f"rows.{suffix}").write_text(rows[suffix])
    arguments = ["data=local", f"data.path=rows.{suffix}", "data.fields.prompt=prompt"]
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "no row has the column `prompt`" in done.stderr
    assert done.stdout.splitlines()[-1] == "STATUS 2 HEAVY []"


def test_the_command_itself_exits_with_status_2_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lora_detox", "algorithm.leraning_rate=1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "did you mean algorithm.learning_rate" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_old_keys_say_where_they_went(refuse, prefix):
    lines = refuse(*(f"{prefix}{old}=1" for old in RENAMED)).replace("error: ", "").splitlines()
    assert set(lines) >= {f"{old}: renamed to {new}" for old, new in RENAMED.items()}


def test_where_old_keys_went_is_there():
    for new in RENAMED.values():
        assert set(re.findall(r"(?:algorithm|budget|reward)[a-z0-9_.]+", new)) <= set(known_keys())
