"""`lora-detox doctor`: what a report of a fault needs to know of this installation.

Nothing secret is in it: no token, no user name, no path of a person's files.
"""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch
from huggingface_hub import HfApi, constants, get_token

from lora_detox.cache import cache_folder
from lora_detox.environment import device_name, quieten_libraries, versions
from lora_detox.hub import hub_reason
from lora_detox.machine import gains_by_bf16, has_bf16_tiles, has_fast_bf16, resolve_device

_GIB = 2**30
_LITTLE_DISK = 5 * _GIB
_HUB_SECONDS = 5.0
_OF_A_POLICY = 2048
"""Hidden size of a model of a billion weights, for which the faster dtype is told."""
_OPTIONAL = {"gradio": "chat", "wandb": "trackers", "trackio": "trackers"}
"""Package -> extra that installs it."""


def examination() -> list[str]:
    """Look at the installation.

    Returns:
        A line for each fact, and one for each fault that was found.
    """
    quieten_libraries()
    faults: list[str] = []
    lines = [
        *(f"{name:<14} {number}" for name, number in versions().items()),
        f"{'system':<14} {platform.system()} {platform.release()}, {platform.machine()}",
        *_device_lines(),
        _bitsandbytes(faults),
        *_disk_lines(faults),
        *_hub_lines(faults),
        *_optional_lines(),
    ]
    return [*lines, *(f"fault          {one}" for one in faults or ["none found"])]


def _device_lines() -> list[str]:
    device, memory = resolve_device("auto"), psutil.virtual_memory()
    lines = [
        f"{'device':<14} {device_name(device)}",
        f"{'memory':<14} {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free, "
        f"{os.cpu_count()} cores",
    ]
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        lines.append(
            f"{'gpu memory':<14} {free / _GIB:.1f} of {total / _GIB:.1f} GiB free, CUDA "
            f"{torch.version.cuda}, {torch.cuda.device_count()} GPUs"
        )
        by_hardware = "yes" if torch.cuda.is_bf16_supported() else "no"
    else:
        tiles = "yes, in tiles (AMX)" if has_bf16_tiles() else "yes"
        by_hardware = tiles if has_fast_bf16() else "no"
    used = "bfloat16" if gains_by_bf16(device, _OF_A_POLICY) else "float32"
    return [
        *lines,
        f"{'bf16':<14} in hardware: {by_hardware}; policy.dtype=auto takes {used} for a model of "
        "a billion weights",
    ]


def _bitsandbytes(faults: list[str]) -> str:
    """Whether quantization=int8 and nf4 can work: the library is loaded, not only found."""
    name = f"{'bitsandbytes':<14}"
    if find_spec("bitsandbytes") is None:
        return f"{name} not installed: quantization=none alone"
    try:
        from bitsandbytes.cextension import lib  # noqa: PLC0415 (loads a compiled library)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is reported)
        faults.append(f"bitsandbytes does not load ({type(error).__name__}: {error})")
        return f"{name} does not load"
    return f"{name} loads ({type(lib).__name__})"


def _disk_lines(faults: list[str]) -> list[str]:
    folders = {
        "working folder": Path.cwd(),
        "hub cache": Path(constants.HF_HUB_CACHE),
        "data cache": cache_folder(),
    }
    lines = []
    for name, folder in folders.items():
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        lines.append(
            f"{name:<14} {free / _GIB:.0f} GiB free, {'writable' if writable else 'read-only'}"
        )
        if not writable:
            faults.append(f"the {name} cannot be written to")
        elif free < _LITTLE_DISK:
            faults.append(f"the {name} has less than {_LITTLE_DISK / _GIB:.0f} GiB free")
    return lines


def _hub_lines(faults: list[str]) -> list[str]:
    where = "of huggingface.co" if "huggingface.co" in constants.ENDPOINT else "of another host"
    token = "a token is set" if get_token() else "no token"
    if constants.HF_HUB_OFFLINE:
        return [f"{'hub':<14} not asked: HF_HUB_OFFLINE=1; {token}"]
    try:
        HfApi().model_info("google/flan-t5-small", timeout=_HUB_SECONDS)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is reported)
        faults.append(f"the hub does not answer ({hub_reason(error, 'google/flan-t5-small')})")
        return [f"{'hub':<14} the one {where} cannot be reached; {token}"]
    return [f"{'hub':<14} the one {where} answers; {token}"]


def _optional_lines() -> list[str]:
    lines = []
    for package, extra in _OPTIONAL.items():
        try:
            lines.append(f"{package:<14} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package:<14} not installed (pip install 'lora-detox[{extra}]')")
    return lines
