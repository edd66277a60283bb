"""The compiled wheel: built, installed into a clean environment, tested there, and run as a node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from metasrv import __version__
from scripts.compiled_wheel import build, named_modules, tag, why_not
from tests.cluster.test_packages import check_that_it_serves, run
from tests.support.paths import ROOT

TESTED = (
    "grpc_api/http2",
    "grpc_api/test_grpc_calls.py",
    "grpc_api/test_grpc_conversions.py",
    "grpc_api/test_grpc_get_many.py",
    "grpc_api/test_grpc_kv_json.py",
    "raft/core/test_proposals.py",
    "raft/core/test_raft_guards.py",
    "raft/core/test_raft_messages.py",
    "raft/core/test_reads.py",
    "state/test_state_machine.py",
    "state/test_state_rule_table.py",
)
"""Unit tests of compiled modules. Those that put another function in place of a module's own cannot run against it."""
SIMULATION = ("-m", "verification.simulation", "--histories", "20", "--seed", "1", "--workers", "1")
AFTER_TIMES = "acknowledged writes"
"""Lines before these words tell how long it took."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.xdist_group("compiled"),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, where everything else is what this environment has."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", directory / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, directory=directory)
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return directory / "bin"


@pytest.fixture(scope="module")
def tests_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository without the package, so that its tests meet the one that is installed."""
    directory = tmp_path_factory.mktemp("tests")
    for name in ("benchmarks", "conf", "docs", "scripts", "tests", "verification"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    return directory


def test_the_wheel_is_the_ordinary_one_with_extension_modules(wheel: Path) -> None:
    assert wheel.name == f"metasrv-{__version__}-{tag()}.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {
        name.removesuffix(suffix) + ".py" for name in names if name.startswith("metasrv/") and name.endswith(suffix)
    }
    assert compiled == set(named_modules())
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "metasrv").rglob("*.py")} <= names
    assert {name.split("/")[0] for name in names} == {
        "metasrv",
        f"metasrv-{__version__}.dist-info",
        f"metasrv__mypyc{suffix}",
    }
    description = zipfile.ZipFile(wheel).read(f"metasrv-{__version__}.dist-info/WHEEL").decode()
    assert f"Root-Is-Purelib: false\nTag: {tag()}\n" in description


def test_the_modules_that_are_imported_are_compiled(programs: Path, tmp_path: Path) -> None:
    modules = [path.removesuffix(".py").replace("/", ".") for path in named_modules()]
    asked = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
    files = run(programs / "python", "-c", asked, *modules, directory=tmp_path).splitlines()
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert [file for file in files if not file.endswith(suffix)] == []
    assert len(files) == len(modules)


def test_it_runs_a_node_and_says_that_it_is_compiled(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "metasrv", "--version", directory=tmp_path).strip() == f"metasrv {__version__}+compiled"
    check_that_it_serves(programs, tmp_path)


@pytest.mark.parametrize("path", TESTED)
def test_a_sample_of_the_unit_tests_passes(programs: Path, tests_alone: Path, path: str) -> None:
    command = (
        programs / "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not program",
        f"tests/unit/{path}",
    )
    assert " passed" in run_alone(*command, directory=tests_alone)


def test_histories_of_the_simulator_are_those_of_the_sources(programs: Path, tests_alone: Path) -> None:
    """The same seeds, so the same messages, syncs and answers: compiled modules decide what the sources decide."""
    told = run_alone(programs / "python", *SIMULATION, directory=tests_alone)
    pure = run_alone(sys.executable, *SIMULATION, directory=ROOT)
    assert told.partition(AFTER_TIMES)[2] == pure.partition(AFTER_TIMES)[2] != ""
    assert "histories with violations       0" in told


def run_alone(*command: str | Path, directory: Path) -> str:
    """Standard output of a program that must succeed; no PYTHONPATH names the source tree."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=directory,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    return done.stdout
