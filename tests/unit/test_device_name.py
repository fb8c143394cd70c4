"""What summary.json and `doctor` say of the processor."""

from pathlib import Path

import pytest
import torch

from lora_detox import environment
from lora_detox.environment import device_name

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_cpu_has_its_name_its_instructions_and_its_threads(threads):
    threads(2)
    name = device_name(CPU)
    assert name.endswith(f" ({torch.backends.cpu.get_cpu_capability()}), 2 threads")
    threads(1)
    assert device_name(CPU).endswith(", 1 thread")
    facts = Path("/proc/cpuinfo")
    models = (
        [line for line in facts.open() if line.startswith("model name")] if facts.exists() else []
    )
    if models:
        assert name.startswith(models[0].partition(":")[2].strip())


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n", "AMD EPYC CPU"),
        ("model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\n", "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        ("model name\t: \nprocessor\t: 0\n", "board CPU"),
        (None, "board CPU"),
    ],
)
def test_how_a_cpu_names_itself(facts, named, monkeypatch):
    def read(path, **_):
        if facts is None:
            raise FileNotFoundError(path)
        return facts

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "board")
    assert device_name(CPU).startswith(f"{named} (")
