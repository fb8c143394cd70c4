"""What the processes of a launcher run in the tests: several jobs, or one job with a fault.

torchrun --nproc_per_node 2 -m tests.processes.jobs JOBS.json
"""

import json
import os
import signal
import sys
from pathlib import Path

from lora_detox import api
from lora_detox.__main__ import main
from lora_detox.errors import ScorerError
from lora_detox.processes import joined, processes
from lora_detox.update import PpoUpdate


def run_jobs(jobs):
    """One job after the other, in the processes of one launch."""
    with joined():
        for job in jobs:
            summary = api.run(job["overrides"], job["folder"])
            assert summary["processes"] == processes().size == 2


def fail(kind):
    """What the last process does in its second update."""
    if kind == "error":
        raise ScorerError("the last process cannot score")
    os.kill(os.getpid(), getattr(signal, kind))


def run_with_fault(job):
    """The command line; a fault happens in the last process alone, in its second update."""
    original, calls = PpoUpdate.step, []

    def step(self, *arguments):
        calls.append(1)
        us = processes()
        if len(calls) == 2 and us.rank == us.size - 1:
            fail(job["fault"])
        return original(self, *arguments)

    PpoUpdate.step = step
    sys.argv = ["lora-detox", *job["overrides"], f"hydra.run.dir={job['folder']}"]
    sys.exit(main())


if __name__ == "__main__":
    described = json.loads(Path(sys.argv[1]).read_text())
    if isinstance(described, dict):
        run_with_fault(described)
    run_jobs(described)
