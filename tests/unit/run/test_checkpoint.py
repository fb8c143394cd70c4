"""What is saved comes back bit for bit; what is torn is passed over."""

import json

import pytest
import torch

from lora_detox.errors import DataError
from lora_detox.run.checkpoint import restore_newest, save_checkpoint
from lora_detox.run.manifest import seal


class Training:
    """Two parameters and their optimizer, some steps along."""

    def __init__(self, seed=0, steps=0):
        generator = torch.Generator().manual_seed(seed)
        self.parameters = {
            "a.weight": torch.nn.Parameter(torch.randn(3, 2, generator=generator)),
            "b.bias": torch.nn.Parameter(torch.randn(2, generator=generator)),
        }
        groups = [{"params": [p], "lr": 0.1} for p in self.parameters.values()]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        for _ in range(steps):
            self.step()

    def step(self):
        self.optimizer.zero_grad()
        sum((p**3).sum() for p in self.parameters.values()).backward()
        self.optimizer.step()

    def save(self, folder, iteration, keep=3, **state):
        return save_checkpoint(folder, iteration, self.parameters, self.optimizer, state, keep=keep)

    def restore(self, folder):
        found = restore_newest(folder, self.parameters, self.optimizer)
        return found and found[:2]


def assert_equal(one, other):
    for name, parameter in one.parameters.items():
        assert torch.equal(parameter, other.parameters[name]), name


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path):
    begun, resumed = Training(steps=3), Training(seed=1, steps=1)
    begun.optimizer.param_groups[0]["lr"] = 0.05
    begun.save(tmp_path, 3, kl_coef=0.1 + 0.2, scaler={"count": 7.0})
    assert resumed.restore(tmp_path) == (3, {"kl_coef": 0.1 + 0.2, "scaler": {"count": 7.0}})
    assert_equal(begun, resumed)
    for training in (begun, resumed):
        training.step()
        training.step()
    assert_equal(begun, resumed)


def test_without_a_checkpoint_nothing_changes(tmp_path):
    training, untouched = Training(), Training()
    assert training.restore(tmp_path / "none") is None
    assert_equal(training, untouched)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("fault", ["truncated", "changed", "missing"])
def test_a_torn_checkpoint_is_passed_over(tmp_path, name, fault):
    early, late = Training(steps=1), Training(steps=2)
    early.save(tmp_path, 1)
    file = late.save(tmp_path, 2) / name
    content = file.read_bytes()
    if fault == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif fault == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    resumed = Training(seed=5)
    assert resumed.restore(tmp_path)[0] == 1
    assert_equal(resumed, early)


def test_only_the_newest_stay_and_leftovers_of_killed_processes_go(tmp_path):
    training = Training(steps=1)
    (tmp_path / ".part-iteration_000001-1").mkdir(parents=True)
    for iteration in range(1, 6):
        training.save(tmp_path, iteration, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iteration_000004", "iteration_000005"]


def test_leftovers_go_on_restoring_too_as_a_run_at_its_end_saves_no_more(tmp_path):
    training = Training(steps=1)
    training.save(tmp_path, 3)
    (tmp_path / ".part-iteration_000004-1").mkdir()
    (tmp_path / ".part-iteration_000004-1" / "state.json").write_text("{")
    assert Training().restore(tmp_path)[0] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["iteration_000003"]


def test_a_checkpoint_of_the_same_iteration_is_replaced(tmp_path):
    Training(steps=1).save(tmp_path, 4)
    later = Training(steps=2)
    later.save(tmp_path, 4)
    resumed = Training(seed=3)
    resumed.restore(tmp_path)
    assert_equal(resumed, later)


def test_another_adapter_is_refused_by_name(tmp_path):
    folder = Training(steps=1).save(tmp_path, 1)
    other = Training()
    other.parameters["c.weight"] = other.parameters.pop("a.weight")
    with pytest.raises(DataError, match=r"another adapter \(such as a.weight, c.weight\)"):
        other.restore(tmp_path)
    assert json.loads((folder / "state.json").read_text())["iteration"] == 1


@pytest.mark.parametrize(
    "content",
    [{}, {"iteration": "x", "groups": [], "state": {}}, {"iteration": 1, "groups": 7, "state": {}}],
)
def test_a_checkpoint_of_something_else_is_refused_and_changes_nothing(tmp_path, content):
    folder = Training(steps=1).save(tmp_path, 1)
    (folder / "state.json").write_text(json.dumps(content))
    seal(folder)
    training = Training()
    with pytest.raises(DataError, match=r"does not hold what this version writes .*; remove it"):
        training.restore(tmp_path)
    assert_equal(training, Training())


def test_another_shape_is_refused_rather_than_broadcast(tmp_path):
    Training(steps=1).save(tmp_path, 1)
    other = Training()
    other.parameters["b.bias"] = torch.nn.Parameter(torch.zeros(4, 2))
    with pytest.raises(DataError, match=r"another adapter \(such as b.bias\)"):
        other.restore(tmp_path)


def test_a_torn_newer_one_takes_no_place_and_numbers_are_no_text(tmp_path):
    training = Training(steps=1)
    for iteration in (999_999, 1_000_000):
        training.save(tmp_path, iteration, keep=1)
    assert training.restore(tmp_path)[0] == 1_000_000
    (tmp_path / "iteration_1000009").mkdir()
    training.save(tmp_path, 1_000_001, keep=1)
    assert training.restore(tmp_path)[0] == 1_000_001


def test_further_files_are_part_of_what_has_to_be_whole(tmp_path):
    training = Training(steps=1)
    training.save(tmp_path, 1)
    files = {"run.json": b"{}"}
    folder = save_checkpoint(
        tmp_path, 2, training.parameters, training.optimizer, {}, keep=2, files=files
    )
    assert training.restore(tmp_path)[0] == 2
    (folder / "run.json").write_bytes(b"{ }")
    assert training.restore(tmp_path)[0] == 1
