"""The process around a run: how quiet its libraries are, what machine and versions it has."""

import logging
import os
import platform
import re
import resource
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from transformers.utils import logging as transformers_logging

import lora_detox

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "evaluate",
    "hydra-core",
)


def prepare_process(threads: int | None) -> None:
    """What every stage begins with: quiet libraries, and the number of CPU threads.

    Args:
        threads: as in the settings; None leaves PyTorch's choice.
    """
    quieten_libraries()
    if threads:
        torch.set_num_threads(threads)


def in_multirun() -> bool:
    """Whether this is a job of a multirun, which says what it came to in one line at its end."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def quieten_libraries() -> None:
    """Silence progress bars and notices of loading that a user can do nothing about."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "datasets", "httpx", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("transformers", "peft", "torch", "bitsandbytes"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)


def process_facts(device: torch.device) -> dict[str, Any]:
    """What every summary.json says of the process: peak memory (bytes), device and versions."""
    return {
        "peak_memory_bytes": peak_memory(device),
        "device": device_name(device),
        "versions": versions(),
    }


def peak_memory(device: torch.device) -> int:
    """Most memory held so far, in bytes: of the GPU's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS only
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's with what PyTorch uses of it: instructions and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{_processor()} ({instructions}), {threads} {'thread' if threads == 1 else 'threads'}"


def _processor() -> str:
    """The CPU as it names itself; Python knows that on few systems."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        facts = ""
    named = re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", facts, re.MULTILINE)
    name = named[1] if named else platform.processor() or platform.machine()
    return name if "CPU" in name.split() else f"{name} CPU"


def versions() -> dict[str, str]:
    """Versions of everything that computes, and the commit of the checkout if there is one."""
    known = {"lora_detox": lora_detox.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git("rev-parse", "--short", "HEAD")
    if commit:
        known["commit"] = commit + ("+changes" if _git("status", "--porcelain") else "")
    return known


def _git(*arguments: str) -> str:
    """Output of git in the checkout that this package runs from; empty outside of one."""
    root = Path(lora_detox.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
