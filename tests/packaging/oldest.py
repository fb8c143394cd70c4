"""The lowest versions that pyproject.toml claims, as constraints for pip.

    python tests/packaging/oldest.py > constraints

pip has no choice of lowest versions; with these constraints it takes the lower bound of every
dependency that is named in pyproject.toml. What those depend on is as new as they allow.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
EXTRAS = ("chat", "sweeps", "gguf")
"""Extras that tests use; the others name servers and services, or tools of developers."""
_BOUND = re.compile(r"([A-Za-z0-9_-]+)(?:\[[a-z,]+\])?>=([0-9.]+)")


def lowest(project: dict) -> dict[str, str]:
    """Dependency -> the lowest version that this table of pyproject.toml allows."""
    extras = project["optional-dependencies"]
    found = {}
    for requirement in [*project["dependencies"], *(one for key in EXTRAS for one in extras[key])]:
        bound = _BOUND.match(requirement)
        if bound is None:
            raise SystemExit(f"{requirement}: has no lower bound; want NAME>=VERSION first")
        found[bound[1]] = bound[2]
    return found


def main() -> None:
    """Print the constraints."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in lowest(project).items())


if __name__ == "__main__":
    main()
