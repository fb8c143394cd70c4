"""What a model folder may do: give numbers, and run no code unless its user has said so.

Every load passes `NO_CODE`, or the user's word for it: without it, Transformers asks on standard
input whether to run the Python files of a folder. Weights are safetensors files, whose header is
read here first, so that a pickle under that name or a file that was cut is named.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.utils import cached_file

from lora_detox.hub_ids import is_hub_id
from lora_detox.json_text import parse_json

NO_CODE: Final[dict[str, Any]] = {"trust_remote_code": False}
"""Keywords of every `from_pretrained` and `from_config` of what is never trusted."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LENGTH_BYTES = 8
"""At the start of a safetensors file: the length of its header, little-endian."""
_MOST_HEADER_BYTES = 100_000_000
"""The format's own limit."""
_OTHERS = (
    (b"PK\x03\x04", "it is a zip archive, as torch.save writes with a pickle inside"),
    (b"\x80", "it is a pickle, which can run code when it is read"),
    (b"version https://git-lfs", "it is the pointer that git leaves without git-lfs"),
    (b"<", "it is a page of a web site"),
)
"""First bytes of what is found under the name of a safetensors file."""


def forget_code(config: PretrainedConfig) -> None:
    """Take the references to Python files out of a configuration, those of nested parts too.

    What is built from it later is then a class of Transformers, or an error.

    Args:
        config: changed in place.
    """
    vars(config).pop("auto_map", None)
    for part in list(vars(config).values()):
        if isinstance(part, PretrainedConfig):
            forget_code(part)


def runs_code(config: PretrainedConfig) -> bool:
    """Whether a configuration still refers to Python files of its folder: its user trusts them."""
    return bool(getattr(config, "auto_map", None))


def wants_code(error: BaseException) -> bool:
    """Whether a load failed because the folder's Python files were not run."""
    return "trust_remote_code" in str(error) or "custom code" in str(error)


def foreign_kernel(config: PretrainedConfig) -> str | None:
    """A kernel of the hub, compiled code, that a config.json asks to be loaded for attention."""
    named = getattr(config, "_attn_implementation", None)
    return named if isinstance(named, str) and "/" in named else None


def weight_files(place: str, revision: str | None = None) -> list[Path]:
    """The safetensors files that a model is loaded from, as far as they are on this machine.

    Args:
        place: folder or hub id.
        revision: branch, tag or commit on the hub.

    Returns:
        Their paths, those that an index names but that are missing included; [] where none is here.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        if not is_hub_id(place):
            return []
        config = cached_file(
            place,
            "config.json",
            revision=revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if config is None:
            return []
        folder = Path(config).parent
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    try:
        names = set(parse_json((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (AttributeError, KeyError, TypeError, ValueError):
        return [folder / INDEX]
    return [folder / str(name) for name in sorted(names, key=str)]


def weight_fault(files: Iterable[Path]) -> str | None:
    """What is wrong with weight files, seen from their headers and sizes alone.

    Args:
        files: that should be safetensors files.

    Returns:
        A clause that begins with the file's path; None where all are whole.
    """
    for file in files:
        reason = _fault(file)
        if reason is not None:
            return f"{file} is no whole safetensors file: {reason}"
    return None


def _fault(file: Path) -> str | None:
    if file.suffix != ".safetensors":
        return "want an index of .safetensors files"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(_LENGTH_BYTES)
            length = int.from_bytes(start, "little")
            if len(start) < _LENGTH_BYTES or length > min(size, _MOST_HEADER_BYTES):
                return _kind_of(start, f"it is cut, or its header is garbage ({size:,} bytes)")
            header = parse_json(stream.read(length))
            spans = [entry["data_offsets"][1] for n, entry in header.items() if n != "__metadata__"]
            wanted = _LENGTH_BYTES + length + max(spans, default=0)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        return _kind_of(start, f"its header is garbage ({size:,} bytes)")
    if size == wanted:
        return None
    return f"it has {size:,} bytes, and its header speaks of {wanted:,}; it was cut or overwritten"


def _kind_of(start: bytes, otherwise: str) -> str:
    if not start:
        return "it is empty"
    return next((what for mark, what in _OTHERS if start.startswith(mark[:8])), otherwise)


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first tensor with a NaN or an infinite number.

    Args:
        tensors: by name, of any dtype on any device; integers and quantized codes are passed over.

    Returns:
        A clause, as "h.0.mlp.weight has 3 numbers that are NaN or infinite"; None where all are
        finite.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            continue
        numbers = tensor.detach()
        if tensor.element_size() == 1:  # fp8 has no minimum
            numbers = numbers.float()
        low, high = numbers.aminmax()
        if bool(torch.isfinite(low)) and bool(torch.isfinite(high)):
            continue
        count = int((~torch.isfinite(numbers)).sum())
        return f"{name} has {count:,} numbers that are NaN or infinite"
    return None
