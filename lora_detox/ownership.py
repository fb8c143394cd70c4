"""Which files of a folder this package wrote, so that it replaces those and no others.

A list beside the files holds a digest of each. What is not on the list, or was changed since,
belongs to somebody else.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_detox.json_text import parse_json

LIST = ".lora_detox_files.json"


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """What lies in a folder.

    Attributes:
        own: files that this package wrote there and nobody changed.
        others: everything else, by path within the folder; a folder of others alone by its name.
    """

    own: tuple[str, ...]
    others: tuple[str, ...]


def ownership(folder: Path) -> Ownership:
    """Tell our files of a folder from others.

    Args:
        folder: that may be missing.

    Returns:
        Both kinds, sorted; links are others wherever they lead.
    """
    if not folder.is_dir():
        return Ownership(own=(), others=())
    digests = _listed(folder)
    own = {name for name in digests if _is_own(folder, name, digests[name])}
    above = {str(one) for name in own for one in PurePosixPath(name).parents}
    return Ownership(own=tuple(sorted(own)), others=tuple(sorted(_others(folder, "", own, above))))


def listed_files(folder: Path) -> list[str]:
    """Names of the files that this package wrote into a folder and that are there, sorted."""
    return sorted(name for name in _listed(folder) if (folder / name).is_file())


def put_files(written: Path, target: Path) -> None:
    """Move every file of a folder into another, replacing files of the same name.

    Our files of an earlier time that are not written again are removed. Nothing else is touched. A
    process that is killed meanwhile leaves a list that names the old files and the new ones.

    Args:
        written: on the same file system; its files are moved out.
        target: made if need be.

    Raises:
        OSError: a folder stands where a file belongs.
    """
    before = ownership(target).own
    names = sorted(p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file())
    digests = {name: [_digest(written / name)] for name in names}
    target.mkdir(parents=True, exist_ok=True)
    _write_list(target, {**{n: [_digest(target / n)] for n in before}, **_both(digests, target)})
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (written / name).replace(place)
    for name in before:
        if name not in digests:
            (target / name).unlink()
            _remove_empty(target, name)
    _write_list(target, digests)


def in_the_way(target: Path, names: Sequence[str]) -> str | None:
    """What keeps files from being written into a folder without reaching out of it.

    Args:
        target: the folder, which may be missing.
        names: of the files, as `merged/model.safetensors`; of a folder with a slash at its end.

    Returns:
        The path of a link that leads elsewhere, or of a folder in a file's place; None if nothing.
    """
    for name in names:
        place = target / name
        for folder in PurePosixPath(name).parents:
            above = target / folder
            if str(folder) != "." and above.exists() and (above.is_symlink() or above.is_file()):
                return str(above)
        wrong = place.is_symlink() or place.is_file() if name.endswith("/") else place.is_dir()
        if wrong:
            return str(place)
    return None


def _others(folder: Path, below: str, own: set[str], above: set[str]) -> list[str]:
    names = []
    for entry in sorted((folder / below).iterdir()):
        name = f"{below}{entry.name}"
        if name == LIST or name in own:
            continue
        if name in above and not entry.is_symlink():
            names += _others(folder, f"{name}/", own, above)
        else:
            names.append(name)
    return names


def _listed(folder: Path) -> dict[str, list[str]]:
    """Digests by name; a list that is garbage owns nothing."""
    try:
        files = parse_json((folder / LIST).read_text(encoding="utf-8"))["files"]
        return {
            str(name): [str(one) for one in digests]
            for name, digests in files.items()
            if _is_inside(str(name)) and isinstance(digests, list)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _is_own(folder: Path, name: str, digests: list[str]) -> bool:
    path = folder / name
    on_the_way = [folder / one for one in PurePosixPath(name).parents if str(one) != "."]
    if path.is_symlink() or any(one.is_symlink() for one in on_the_way) or not path.is_file():
        return False
    return _digest(path) in digests


def _both(digests: dict[str, list[str]], target: Path) -> dict[str, list[str]]:
    """The new digests, with that of a file that is there already and about to be replaced."""
    return {
        name: [*new, _digest(target / name)] if (target / name).is_file() else new
        for name, new in digests.items()
    }


def _remove_empty(target: Path, name: str) -> None:
    for folder in PurePosixPath(name).parents:
        if str(folder) != "." and not any((target / folder).iterdir()):
            (target / folder).rmdir()


def _write_list(folder: Path, digests: dict[str, list[str]]) -> None:
    part = folder / f".{LIST.strip('.')}.{os.getpid()}.tmp"
    try:
        part.write_text(json.dumps({"schema": 1, "files": digests}, indent=1) + "\n", "utf-8")
        part.replace(folder / LIST)
    finally:
        part.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
