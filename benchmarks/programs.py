"""The programs that the benchmark needs: checks for them, and installs them where it may."""

from __future__ import annotations

import os
import shutil
import subprocess

PACKAGES = {"etcd": "etcd-server", "h2load": "nghttp2-client"}


class MissingProgramsError(Exception):
    """The text says which Debian packages are needed."""


def require() -> None:
    """Make sure that etcd and h2load can be run; as root, Debian's packages are installed when missing."""
    missing = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingProgramsError(f"the benchmark needs: apt-get install {names}")
    print(f"Installing {names} ...", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *missing]):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            raise MissingProgramsError(f"{' '.join(command)} failed; the benchmark needs: {names}")
