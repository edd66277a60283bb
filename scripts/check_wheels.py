"""Check that every dependency has a wheel for each platform that the README names.

Asks the package index of this machine's pip, downloads into a temporary directory and installs nothing. pysyncobj comes
as source only; it is pure Python, so pip builds it anywhere. Exit code 1 names what is missing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.interpreters import supported

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
PLATFORMS = {
    "Linux x86-64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "Linux arm64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "macOS arm64": ("macosx_14_0_arm64", "macosx_11_0_arm64", "macosx_14_0_universal2", "macosx_11_0_universal2"),
    "macOS x86-64": ("macosx_14_0_x86_64", "macosx_10_12_x86_64", "macosx_10_9_x86_64", "macosx_10_9_universal2"),
}
SOURCE_ONLY = ("pysyncobj",)


def main() -> int:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = [
        requirement.partition(";")[0].strip()
        for requirement in project["dependencies"]
        if not requirement.startswith(SOURCE_ONLY)
    ]
    missing = 0
    for name, platforms in PLATFORMS.items():
        for version in supported():
            problem = find_problem(requirements, platforms, version)
            print(f"{name:14} Python {version}: {problem or 'a wheel of everything'}")
            missing += problem is not None
    return 1 if missing else 0


def find_problem(requirements: list[str], platforms: tuple[str, ...], version: str) -> str | None:
    """The last line of pip's complaint, or None."""
    with tempfile.TemporaryDirectory(prefix="metasrv-wheels-") as directory:
        tags = [argument for platform in platforms for argument in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", directory]
        command += ["--python-version", version, "--implementation", "cp", *tags, *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


if __name__ == "__main__":
    sys.exit(main())
