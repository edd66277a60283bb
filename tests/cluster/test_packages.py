"""The wheel and the source archive, as somebody gets them: built, installed into clean environments, and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from metasrv import __version__
from metasrv.testing.ports import PortReservation
from tests.support.paths import ROOT

BUILD_SECONDS = 500
START_SECONDS = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_000), pytest.mark.xdist_group("packages")]


def run(*command: str | Path, directory: Path, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """Standard output of a program that must succeed, run where no source tree is."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(variables)
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive of this tree."""
    directory = tmp_path_factory.mktemp("packages")
    builder = directory / "builder"
    venv.create(builder, with_pip=True)
    python = builder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "build", "pipx", directory=directory)
    run(python, "-m", "build", "--outdir", directory / "dist", ROOT, directory=directory)
    (wheel,) = (directory / "dist").glob("*.whl")
    (archive,) = (directory / "dist").glob("*.tar.gz")
    return wheel, archive


def test_the_packages_hold_what_belongs_to_them(packages: tuple[Path, Path]) -> None:
    wheel, archive = packages
    assert wheel.name == f"metasrv-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert "metasrv/py.typed" in names
    assert sum(name.startswith("metasrv/runbooks/") for name in names) == len(
        list((ROOT / "docs" / "runbooks").iterdir())
    )
    assert {name.split("/")[0] for name in names} == {"metasrv", f"metasrv-{__version__}.dist-info"}
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert {"README.md", "LICENSE", "conf/node1.toml", "deploy/systemd/metasrv.service"} <= inside
    assert not [name for name in inside if re.search(r"(^|/)(\.venv|build|__pycache__)/", name)]


def test_the_source_archive_builds_the_same_wheel(packages: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, archive = packages
    pip = wheel.parent.parent / "builder" / "bin" / "pip"
    run(pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, archive, directory=tmp_path)
    again = zipfile.ZipFile(tmp_path / wheel.name)
    first = zipfile.ZipFile(wheel)
    assert {one.filename: one.CRC for one in again.infolist()} == {one.filename: one.CRC for one in first.infolist()}


@pytest.mark.long
def test_pipx_installs_the_wheel_and_it_runs_a_node(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """pipx makes a clean environment of its own, so this is `pip install` as well."""
    wheel = packages[0]
    places = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    pipx = wheel.parent.parent / "builder" / "bin" / "pipx"
    run(pipx, "install", "--python", sys.executable, wheel, directory=tmp_path, variables=places)
    programs = tmp_path / "bin"
    assert run(programs / "metasrv", "--version", directory=tmp_path).strip() == f"metasrv {__version__}"
    assert "Usage: metactl" in run(programs / "metactl", "--help", directory=tmp_path)
    check_that_it_serves(programs, tmp_path)


def check_that_it_serves(programs: Path, directory: Path) -> None:
    """A lone node from nothing, written to and read with `metactl`, and ended in good order."""
    ports = PortReservation()
    admin, grpc, raft = (ports.take() for _ in range(3))
    settings = (
        *("--single", "--id", "1", "--raft-dir", str(directory / "data"), "--log-file-on", "false"),
        *("--admin-api-address", f"127.0.0.1:{admin}", "--grpc-api-address", f"127.0.0.1:{grpc}"),
        *("--raft-api-port", str(raft), "--raft-advertise-host", "127.0.0.1"),
    )
    node = subprocess.Popen([programs / "metasrv", *settings], cwd=directory, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(admin):
            assert node.poll() is None, node.stdout.read() if node.stdout else ""
            assert time.monotonic() < deadline, "the node did not become ready"
            time.sleep(0.1)
        at = ("--grpc-api-address", f"127.0.0.1:{grpc}")
        run(programs / "metactl", "upsert", *at, "--key", "k", "--value", "v", directory=directory)
        said = run(programs / "metactl", "get", *at, "--key", "k", directory=directory)
        assert json.loads(said)["data"] == list(b"v")
        node.terminate()
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.communicate()
        ports.release()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
