"""Processes that a launcher really starts: two on this machine, with gloo between them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

TOP = Path(__file__).resolve().parents[2]
SECONDS = 400
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc_per_node", "2", "--master_port"],
    "accelerate": [
        "accelerate.commands.launch",
        *("--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"),
    ],
}
LAUNCHERS["fsdp"] = [
    word if word != "--multi_gpu" else "--use_fsdp" for word in LAUNCHERS["accelerate"]
]
OF_LAUNCHERS = ("ACCELERATE_", "FSDP_", "OMPI_", "PMI_", "TORCHELASTIC_")


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def launch(module, *arguments, launcher="torchrun"):
    """Two processes of a module; what they wrote and the status of the launcher."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OF_LAUNCHERS)}
    environment = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOP)}
    start = [sys.executable, "-m", *LAUNCHERS[launcher], free_port()]
    return subprocess.run(
        [*start, "-m", module, *arguments],
        env=environment,
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def launch_jobs(folder, jobs):
    """Jobs (a list), or one with a fault, in two processes."""
    described = folder / "jobs.json"
    described.write_text(json.dumps(jobs))
    return launch("tests.processes.jobs", str(described))


def weights(folder):
    """Adapter and value head of a run."""
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    head = folder / "value_head.safetensors"
    return tensors | (load_file(head) if head.exists() else {})


def largest_difference(one, other):
    """Of any weight of two runs."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def rows_of(folder):
    """Rows of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def responses_of(folder):
    """What a run wrote before and after."""
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [(one["before"], one["after"]) for one in samples]
