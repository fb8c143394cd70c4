"""What one of several processes does, without the others; tests/processes has two real ones."""

from itertools import chain

import pytest
import torch
from torch import nn

from lora_detox import processes as module
from lora_detox.api import compose_settings
from lora_detox.choices import RolloutEngine, Stage, TrainerKind
from lora_detox.errors import DataError, ProcessError, ScorerError, SettingsError
from lora_detox.machine import resolve_device
from lora_detox.processes import Processes, joined, processes
from lora_detox.rollout.passes import Passes, partition_rows
from lora_detox.run.checksums import check_alike
from lora_detox.signals import Interrupted
from lora_detox.stages import TOGETHER, run_stage
from lora_detox.update.gradients import add_up_gradients


class Others(Processes):
    """The others say what a test gives them."""

    def __init__(self, *words, rank=0):
        super().__init__(rank, 1 + len(words))
        self.words, self.own = list(words), []

    def _exchange(self, word):
        if self._parted:
            raise ProcessError("parted")
        self.own.append(word)
        said = list(self.words)
        said.insert(self.rank, word)
        return said


def word(value=None, **how):
    return module._Word(value=value, **how)


@pytest.fixture
def be(monkeypatch):
    """Be one of some processes."""

    def become(us):
        monkeypatch.setattr(module, "_current", [us])
        return us

    return become


def test_one_process_has_nothing_to_share_and_nobody_to_meet():
    us, rows, tensor = processes(), torch.arange(5), torch.ones(5)
    assert (us.rank, us.size, us.is_first) == (0, 1, True)
    assert us.share(rows) is rows
    assert us.gather("own") == ["own"]
    assert us.first(lambda: 7) == 7
    with us.in_turn():
        us.fill(rows, tensor)
        us.add_up(tensor)
    assert tensor.tolist() == [1.0] * 5


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_every_row_is_in_one_share(count, size):
    for rows in (range(count), list(range(count)), torch.arange(count)):
        shares = [[int(row) for row in Processes(rank, size).share(rows)] for rank in range(size)]
        assert sorted(chain.from_iterable(shares)) == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shares_of_minibatches_make_those_of_one_process(be):
    lengths = torch.arange(9) % 4 + 1

    def parts():
        return partition_rows(lengths, lengths, minibatch_size=4, passes=Passes(rows=2), seed=5)

    def rows_of(minibatch):
        return [int(row) for rows in minibatch for row in rows]

    whole, shares = parts(), []
    for rank in range(3):
        be(Processes(rank, 3))
        shares.append(parts())
    assert [len(one) for one in shares] == [len(whole)] * 3
    for minibatch, *divided in zip(whole, *shares, strict=True):
        assert sorted(rows_of(minibatch)) == sorted(chain.from_iterable(map(rows_of, divided)))
    assert shares[2][-1] == ()  # the last minibatch has one row


def test_an_error_of_another_process_is_an_error_here_and_nobody_meets_again():
    us = Others(word(), word(failure="no such file"))
    with pytest.raises(ProcessError, match="process 2 of 3: no such file"):
        us.gather("own")
    with pytest.raises(ProcessError, match="parted"):
        us.gather("own")
    assert not us.end(ProcessError("process 2 of 3: no such file"))


def test_a_signal_of_another_process_ends_this_one():
    us = Others(word(stopped="SIGTERM"))
    with pytest.raises(Interrupted, match="SIGTERM") as stop:
        us.gather(None)
    assert not us.end(stop.value)
    assert len(us.own) == 1


@pytest.mark.parametrize(
    ("error", "first", "speaks"),
    [
        (SettingsError("told by the first"), word(), False),
        (KeyError("has a traceback"), word(), True),
        (KeyError("has a traceback"), word(failure="KeyError: the same"), False),
        (Interrupted("SIGINT"), word(), False),
    ],
)
def test_only_a_fault_that_the_first_does_not_have_is_told_by_another(error, first, speaks):
    us = Others(first, rank=1)
    assert us.end(error) is speaks
    assert str(error) in (us.own[0].failure or "stopped by SIGINT")
    assert us.own[0].stopped == (error.name if isinstance(error, Interrupted) else None)


def test_work_of_the_first_is_done_once_and_fails_for_all():
    def fails():
        raise ScorerError("broken")

    first = Others(word())
    with pytest.raises(ScorerError, match="broken"):
        first.first(fails)
    assert isinstance(first.own[0].value, ScorerError)
    second = Others(word(ScorerError("broken")), rank=1)
    with pytest.raises(ScorerError, match="broken"):
        second.first(pytest.fail)
    assert Others(word([1, 2]), rank=1).first(pytest.fail) == [1, 2]


def test_rows_of_others_are_filled_in():
    tensor = torch.zeros(4, 2)
    tensor[[0, 2]] = 1.0
    us = Others(word((torch.tensor([1, 3]), [torch.full((2, 2), 5.0)])))
    us.fill(torch.tensor([0, 2]), tensor)
    assert tensor[:, 0].tolist() == [1.0, 5.0, 1.0, 5.0]


def test_gradients_are_added_and_what_nobody_has_stays_without(be, monkeypatch):
    us = be(Others(word()))
    learned = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    learned[0].grad = torch.tensor([1.0, 2.0])
    theirs = torch.tensor([10.0, 20.0, 3.0, 4.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    monkeypatch.setattr(us, "add_up", lambda flat: flat.add_(theirs))
    add_up_gradients(iter(learned))
    assert learned[0].grad.tolist() == [11.0, 22.0]
    assert learned[1].grad.tolist() == [3.0, 4.0]
    assert learned[2].grad is None


def test_processes_that_read_other_files_are_told(be):
    be(Others(word({"test": "8 rows (ab)", "reward": "x"})))
    with pytest.raises(DataError, match=r"test: 9 rows \(cd\) in process 0, 8 rows \(ab\) in"):
        check_alike({"test": "9 rows (cd)", "reward": "x"})
    check_alike({"reward": "x"})


@pytest.mark.parametrize("name", module._REFUSED)
@pytest.mark.parametrize("size", ["1", "2"])
def test_what_nobody_does_here_is_refused(name, size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv(name, "true")
    with pytest.raises(SettingsError, match="accelerate launch asks for"), joined():
        pytest.fail("not to be begun")


@pytest.mark.parametrize(
    ("environment", "divided"),
    [
        ({}, False),
        ({"ACCELERATE_USE_FSDP": "true"}, True),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "FULL_SHARD"}, True),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_SHARDING_STRATEGY": "NO_SHARD"}, False),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, True),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, False),
    ],
)
def test_accelerate_is_asked_whether_the_backbone_is_divided(environment, divided, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert module.launched_sharded() is divided


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantization=int8"], "divides plain weights, but quantization=int8"),
        (["stage=evaluate", "decoding=bad_words"], "only plain decoding"),
        (["stage=sft"], "want stage=detox or stage=evaluate"),
    ],
)
@pytest.mark.parametrize("asked", ["setting", "launcher"])
def test_what_needs_whole_weights_is_refused(overrides, message, asked, tmp_path, monkeypatch):
    if asked == "launcher":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    else:
        overrides = [*overrides, "policy.sharded=true"]
    with pytest.raises(SettingsError, match=message):
        compose_settings(["task=gptj_continuation", *overrides], tmp_path / "run")


def test_one_process_where_several_were_asked_for_is_refused(monkeypatch):
    for key in ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(key, "1")
    with pytest.raises(SettingsError, match="has started one"), joined():
        pytest.fail("not to be begun")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as us:
        assert us.size == 1


def test_each_process_takes_a_gpu_of_its_own(be, monkeypatch):
    be(Processes(1, 2))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SettingsError, match="CUDA_VISIBLE_DEVICES"):
        resolve_device("cuda:0")
    assert resolve_device("cpu") == torch.device("cpu")
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 1)
    assert chosen == [1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"fewer GPUs \(1\) than processes"):
        resolve_device("auto")


@pytest.mark.parametrize("stage", sorted(set(Stage) - set(TOGETHER)))
def test_other_stages_are_refused_before_anything_is_read(stage, be, tmp_path):
    settings = compose_settings(["task=gptj_continuation"], tmp_path / "run")
    settings.stage = stage
    be(Processes(1, 2))
    with pytest.raises(SettingsError, match=f"stage={stage.value} with 2 processes"):
        run_stage(settings)
    assert not (tmp_path / "run").exists()


def test_rollouts_by_a_server_are_refused(be, tmp_path):
    settings = compose_settings(["task=gptj_continuation"], tmp_path / "run")
    settings.rollout.engine = RolloutEngine.vllm
    be(Processes(1, 2))
    with pytest.raises(SettingsError, match="rollout=vllm with 2 processes"):
        run_stage(settings)


@pytest.mark.parametrize("kind", sorted(set(TrainerKind) - {TrainerKind.native}))
def test_other_trainers_are_refused(kind, be, tmp_path):
    settings = compose_settings(["task=gptj_continuation"], tmp_path / "run")
    settings.algorithm.trainer.kind = kind
    be(Processes(0, 2))
    with pytest.raises(SettingsError, match=f"algorithm={kind.value} with 2 processes"):
        run_stage(settings)
