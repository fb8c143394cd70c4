"""A run that a signal ends in the midst of an iteration goes on bit for bit."""

import json
import multiprocessing
import os
import shutil
import signal
import sys

import pytest

from lora_detox import __main__ as command_line
from lora_detox.api import run
from lora_detox.evaluation.evaluator import Evaluator
from lora_detox.signals import Interrupted
from lora_detox.trainers.arguments import LossLog
from lora_detox.update import PpoUpdate
from tests.fault.test_resume import result_of
from tests.runs import SMOKE

pytestmark = [pytest.mark.training, pytest.mark.slow]

OPTIONS = [
    *SMOKE,
    "task=gptj_continuation",
    "algorithm.iterations=3",
    "algorithm.score_norm=whiten",
    "algorithm.average=0.8",
    "algorithm.schedule=linear",
    "adapter.dropout=0.1",
    "checkpoint.every=0",
    "evaluation.every=2",
    "evaluation.validation_prompts=4",
    "evaluation.test_prompts=4",
    "evaluation.resamples=20",
]


def signal_at(monkeypatch, owner, name, number, call):
    """Send the process a signal within the call of that number, counted from 1."""
    original, calls = getattr(owner, name), []

    def signalled(*arguments, **keywords):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, signalled)


def test_a_stopped_iteration_is_dropped_and_done_again_bit_for_bit(monkeypatch, tmp_path, capfd):
    run(OPTIONS, tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints").exists()
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:  # iterations have 2 epochs of 2 minibatches
        signal_at(patch, PpoUpdate, "_minibatch", signal.SIGTERM, 4 + 3)
        with pytest.raises(Interrupted, match=r"SIGTERM after iteration 1 of 3, kept in .*_000001"):
            run(OPTIONS, stopped)
    assert "SIGTERM: ending after this minibatch" in capfd.readouterr().err
    with monkeypatch.context() as patch:  # the first evaluation of a resumed run: iteration 2
        signal_at(patch, Evaluator, "__call__", signal.SIGINT, 1)
        with pytest.raises(Interrupted, match=r"SIGINT after iteration 1 of 3, kept in .*_000001"):
            run([*OPTIONS, "resume=true"], stopped)
    run([*OPTIONS, "resume=true"], stopped)
    assert result_of(stopped) == result_of(tmp_path / "whole")


REWARD = """
import os, signal, time
calls = []
def reward(prompts, completions, **columns):
    calls.append(1)
    if len(calls) == int(os.environ["SIGNAL_AT"]):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)
    return [float(len(set(text))) for text in completions]
"""


def run_command(arguments, folder, environment):
    """The command line in this process, whose output goes to files."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(environment)
    sys.argv = ["lora-detox", *arguments]
    sys.exit(command_line.main())


def test_the_command_line_ends_with_the_exit_code_and_one_line_that_goes_on(tmp_path):
    """The signal comes within a reward function of the user's, which would take a minute."""
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho $* > $0.called\n")
    (tmp_path / "scontrol").chmod(0o755)
    options = [*OPTIONS, f"reward.function={tmp_path}/reward.py:reward", "reward.probe=false"]
    options += [f"hydra.run.dir={tmp_path}/run", "checkpoint.requeue=true"]
    environment = {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    arguments = (options, tmp_path, environment | {"SIGNAL_AT": "5"})
    process = multiprocessing.get_context("fork").Process(target=run_command, args=arguments)
    process.start()
    process.join(300)
    assert process.exitcode == 75, (tmp_path / "err").read_text()
    (line,) = (tmp_path / "err").read_text().splitlines()[-1:]
    assert "stopped by SIGUSR1 after iteration" in line
    assert ", requeued as Slurm job 7; go on with: lora-detox debug=smoke" in line
    assert line.endswith(f"resume=true hydra.run.dir={tmp_path}/run")
    assert (tmp_path / "scontrol.called").read_text() == "requeue 7\n"
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads(rows[-1])["iteration"] == int(checkpoint.name[-6:]) > 0


def test_a_stopped_trainer_keeps_its_step(monkeypatch, tmp_path):
    options = [*SMOKE, "stage=sft", "task=gptj_continuation", "data.fields.references=null"]
    options += ["sft.max_steps=5", "sft.batch_size=4", "sft.log_every=1", "checkpoint.every=0"]
    options += ["adapter.dropout=0.1", "evaluation.test_prompts=4", "evaluation.resamples=20"]
    run(options, tmp_path / "whole")
    assert not list((tmp_path / "whole").glob("checkpoints/*"))
    with monkeypatch.context() as patch:
        signal_at(patch, LossLog, "on_log", signal.SIGHUP, 2)
        with pytest.raises(Interrupted, match=r"SIGHUP after step 3 of 5, kept in .*checkpoints"):
            run(options, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "tensorboard")
    run([*options, "resume=true"], tmp_path / "stopped")
    first, second = (
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("whole", "stopped")
    )
    assert first == second
