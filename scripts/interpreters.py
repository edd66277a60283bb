"""Run the unit tests with every supported Python that this machine has; say which are missing.

Supported are the versions that the classifiers of pyproject.toml name. Each gets an environment of its own below
`.interpreters/`, with the same locked packages. Looks for `python3.X` on the PATH, then among the versions of pyenv.
Exit code 1 when tests failed, or when no supported Python was found. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ".interpreters"
CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
TESTS = ("-m", "not docker and not long", "--dist", "loadgroup", "tests/unit")


def supported() -> list[str]:
    """`["3.11", …]`, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [match[1] for match in map(CLASSIFIER.fullmatch, project["classifiers"]) if match]


def places(version: str, pyenv_versions: Path) -> Iterable[str]:
    """Where a Python of this version may be, the best place first."""
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    newest_first = sorted(pyenv_versions.glob(f"{version}.*"), key=numbers, reverse=True)
    yield from (str(path / "bin" / "python") for path in newest_first)


def numbers(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", path.name)]


def answers_as(python: str, version: str) -> bool:
    """Whether the program runs and is this version. A placeholder of pyenv for a version that is not in use does not."""
    command = [python, "-c", "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def find(version: str, pyenv_versions: Path) -> str | None:
    return next((python for python in places(version, pyenv_versions) if answers_as(python, version)), None)


def run(python: str, version: str, arguments: Sequence[str]) -> bool:
    """Make the environment of this version where needed, and run the tests in it."""
    environment = f"{ENVIRONMENTS}/{version}"
    settings = {**os.environ, "PYTHON": python}
    if subprocess.run(["scripts/make_environment.sh", environment], cwd=ROOT, env=settings, check=False).returncode:
        return False
    workers = os.environ.get("WORKERS", "2")
    command = [f"{environment}/bin/python", "-m", "pytest", "-q", "-n", workers, *TESTS, *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def main(arguments: Sequence[str]) -> int:
    pyenv_versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    outcomes = {}
    for version in supported():
        python = find(version, pyenv_versions)
        if python is None:
            outcomes[version] = "skipped: there is no such Python on the PATH or among pyenv's versions"
            continue
        print(f"Python {version}: {python}", flush=True)
        outcomes[version] = "passed" if run(python, version, arguments) else "FAILED"
    for version, outcome in outcomes.items():
        print(f"Python {version}: {outcome}")
    return 0 if "passed" in outcomes.values() and "FAILED" not in outcomes.values() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
