"""What users install works: `make package`.

Builds the sdist, the wheel of the tree and the wheel of the sdist, looks into all three, installs
the wheel into an empty environment and runs the main job of it from another folder.

    python tests/packaging/check.py [--python PYTHON]       of the empty environment
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lora_detox", "hydra_plugins")
OF_THE_SDIST = {*PACKAGES, "conf", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
WRITTEN = {"PKG-INFO", ".gitignore"}
"""What hatchling adds to every sdist."""
MINIATURE = ["task=flan_summary", "debug=smoke", "threads=1"]


def sources() -> set[str]:
    """Files of the tree that users need, `conf/` where the wheel has it."""
    folders = {name: ROOT / name for name in PACKAGES} | {"lora_detox/conf": ROOT / "conf"}
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def wheel_files(wheel: Path) -> dict[str, int]:
    """Path -> checksum of the files in a wheel, without the record of them."""
    with zipfile.ZipFile(wheel) as archive:
        files = {one.filename: one.CRC for one in archive.infolist() if not one.is_dir()}
    return {name: crc for name, crc in files.items() if not name.endswith("/RECORD")}


def sdist_files(sdist: Path) -> set[str]:
    """Paths below the one folder of an sdist."""
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(one.name) for one in archive.getmembers() if one.isfile()]
    return {name.relative_to(name.parts[0]).as_posix() for name in names}


def faults_of_wheel(files: set[str], wanted: set[str]) -> list[str]:
    """What a wheel lacks, and what it has that is not of the packages."""
    metadata = {name for name in files if name.partition("/")[0].endswith(".dist-info")}
    lacks = [f"wheel lacks {name}" for name in sorted(wanted - files)]
    strange = [f"wheel has {name}" for name in sorted(files - metadata - wanted)]
    licensed = any(name.endswith("/licenses/LICENSE") for name in metadata)
    return [*lacks, *strange, *([] if licensed else ["wheel lacks its LICENSE"])]


def faults_of_sdist(files: set[str], wanted: set[str]) -> list[str]:
    """What an sdist lacks for building the wheel, and what it has besides."""
    tops = {name.partition("/")[0] for name in files}
    built = {re.sub("^conf/", "lora_detox/conf/", name) for name in files}
    return [
        *(f"sdist lacks {name}" for name in sorted((wanted - built) | (OF_THE_SDIST - tops))),
        *(f"sdist has {name}" for name in sorted(tops - OF_THE_SDIST - WRITTEN)),
    ]


def differences(tree: dict[str, int], sdist: dict[str, int]) -> list[str]:
    """Files in which the wheel of the tree and the wheel of the sdist differ."""
    names = sorted(name for name in {*tree, *sdist} if tree.get(name) != sdist.get(name))
    return [f"{name}: not the same in the wheels of tree and sdist" for name in names]


def build(tree: Path, folder: Path, *targets: str) -> None:
    """Build in `tree` with the backend itself, which asks no index for anything."""
    chosen = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *chosen]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def archives(folder: Path) -> tuple[Path, list[str]]:
    """Build everything below `folder`; the wheel of the tree, and what is wrong."""
    build(ROOT, folder / "tree", "sdist", "wheel")
    (sdist,), (wheel,) = folder.glob("tree/*.tar.gz"), folder.glob("tree/*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    build(unpacked, folder / "sdist", "wheel")
    (second,) = folder.glob("sdist/*.whl")
    files, wanted = wheel_files(wheel), sources()
    faults = [
        *faults_of_wheel(set(files), wanted),
        *faults_of_sdist(sdist_files(sdist), wanted),
        *differences(files, wheel_files(second)),
    ]
    print(f"{sdist.name}, {wheel.name}: {len(files)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    return wheel, faults


class Environment:
    """An environment with the wheel and what it requires, used from a folder elsewhere."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.elsewhere = folder / "environment", folder / "elsewhere"
        self.elsewhere.mkdir()
        if python == sys.executable:  # of a virtual environment itself: its base is taken
            venv.create(self.folder, with_pip=True)
        else:
            subprocess.run([python, "-m", "venv", str(self.folder)], check=True)

    def output(self, program: str, *arguments: str) -> str:
        """What a program of the environment prints; it ends this one if it fails."""
        hidden = ("PYTHON", "VIRTUAL_ENV", "LORA_DETOX_")
        environment = {key: v for key, v in os.environ.items() if not key.startswith(hidden)}
        done = subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            cwd=self.elsewhere,
            env=environment | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{program} {' '.join(arguments)}: exit {done.returncode}")
        return done.stdout

    def install(self, wheel: Path) -> None:
        """PyTorch first and pinned, as `make setup` does it, then the wheel alone."""
        pinned = ["--quiet", "--disable-pip-version-check", "--constraint"]
        for what in ("torch", str(wheel)):
            self.output(
                "python", "-m", "pip", "install", *pinned, str(ROOT / "constraints.txt"), what
            )
        self.output("python", "-m", "pip", "check")


def run_installed(environment: Environment) -> list[str]:
    """Run the installed programs; what is wrong."""
    where = "import lora_detox, lora_detox.__main__ as m; print(lora_detox.__file__, m.conf_dir())"
    faults = [
        f"{path}: not of the empty environment"
        for path in environment.output("python", "-c", where).split()
        if not Path(path).is_relative_to(environment.folder)
    ]
    print(environment.output("lora-detox", "--version").strip())
    doctor = environment.output("lora-detox", "doctor")
    told = [line for line in doctor.splitlines() if line.startswith("fault")]
    faults += [line for line in told if not line.endswith("none found")]
    run = environment.elsewhere / "run"
    environment.output("lora-detox", *MINIATURE, f"hydra.run.dir={run}")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    if "commit" in summary["versions"]:
        faults.append(f"the run is of a checkout, commit {summary['versions']['commit']}")
    wanted = ("report.html", "adapter/adapter_model.safetensors")
    return [*faults, *(f"the run has no {one}" for one in wanted if not (run / one).is_file())]


def main() -> None:
    """Build, look, install, run; exit status 1 with a line for each fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="of the empty environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-detox-package-") as name:
        folder = Path(name).resolve()
        wheel, faults = archives(folder)
        if not faults:
            environment = Environment(folder, options.python)
            environment.install(wheel)
            faults = run_installed(environment)
    if faults:
        raise SystemExit("\n".join(faults))
    print("sdist and wheel are complete, and the installed wheel runs from another folder")


if __name__ == "__main__":
    main()
