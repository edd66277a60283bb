"""Which Python `make` takes: one built with optimisation, and the same one every time. Which ones the tests run with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.interpreter_build import OPTIMISED, PLAIN, built
from scripts.interpreters import find, supported
from tests.support.paths import ROOT

pytestmark = pytest.mark.program

RAN = 5
PYTHON = """#!/bin/sh
case "$1" in
-c) exit {unsuitable} ;;
*interpreter_build.py) echo {build} ;;
esac
"""


@pytest.mark.parametrize(
    ("variables", "base_prefix", "expected"),
    [
        ({"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, "/usr/local", OPTIMISED),
        ({"CONFIG_ARGS": "", "PY_CORE_CFLAGS": "-O3 -fprofile-use -fprofile-correction"}, "/opt/python", OPTIMISED),
        ({"CONFIG_ARGS": "'--enable-shared'", "PGO_PROF_USE_FLAG": ""}, "/usr", OPTIMISED),
        (
            {"CONFIG_ARGS": "'--enable-shared'", "PY_CFLAGS": "-O3", "PGO_PROF_USE_FLAG": "-fprofile-use"},
            "/root/.pyenv/versions/3.13.0",
            PLAIN,
        ),
        ({}, "/opt/python", PLAIN),
    ],
)
def test_how_an_interpreter_was_built_is_read_from_its_build(
    variables: dict[str, object], base_prefix: str, expected: str
) -> None:
    assert built(variables, base_prefix) == expected


def interpreter(directory: Path, name: str, build: str, unsuitable: int = 0) -> Path:
    """A program that answers what is asked of a Python."""
    path = directory / name
    path.write_text(PYTHON.format(build=build, unsuitable=unsuitable))
    path.chmod(0o755)
    return path


def choice(path: Path, system: Path, python: str = "") -> tuple[set[str], str]:
    """What was chosen in several runs, and what the last one said about it."""
    environment = {"PATH": f"{path}:/usr/bin:/bin", "SYSTEM_PYTHON": str(system), "PYTHON": python}
    chosen = set()
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        if not (path / name).exists():
            interpreter(path, name, PLAIN, unsuitable=1)  # hides this machine's
    for _ in range(RAN):
        done = subprocess.run(
            [str(ROOT / "scripts" / "choose_python.sh")], env=environment, capture_output=True, text=True, check=False
        )
        chosen.add(done.stdout.strip())
    return chosen, done.stderr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "path").mkdir()
    return tmp_path / "path"


def test_an_optimised_one_is_taken_before_a_plain_one_that_comes_first(tmp_path: Path, path: Path) -> None:
    plain, newer = interpreter(path, "python3", PLAIN), interpreter(path, "python3.13", OPTIMISED)
    chosen, said = choice(path, interpreter(tmp_path, "system", OPTIMISED))
    assert chosen == {str(newer)}
    assert f"{plain} was not" in said


def test_the_systems_is_taken_where_all_on_the_path_are_plain(tmp_path: Path, path: Path) -> None:
    interpreter(path, "python3", PLAIN)
    system = interpreter(tmp_path, "system", OPTIMISED)
    assert choice(path, system)[0] == {str(system)}


def test_the_first_on_the_path_is_taken_where_none_is_optimised(tmp_path: Path, path: Path) -> None:
    interpreter(path, "python3", OPTIMISED, unsuitable=1)
    first = interpreter(path, "python3.12", PLAIN)
    chosen, said = choice(path, interpreter(tmp_path, "system", PLAIN))
    assert chosen == {str(first)}
    assert "was built without optimisation" in said


def test_the_one_that_is_named_is_taken_however_it_was_built(tmp_path: Path, path: Path) -> None:
    interpreter(path, "python3", OPTIMISED)
    named = interpreter(tmp_path, "named", PLAIN)
    assert choice(path, interpreter(tmp_path, "system", OPTIMISED), python=str(named)) == ({str(named)}, "")


def test_none_is_said(tmp_path: Path, path: Path) -> None:
    chosen, said = choice(path, interpreter(tmp_path, "system", OPTIMISED, unsuitable=1))
    assert chosen == {""}
    assert said.startswith("metasrv needs Python 3.11 or later")


def test_the_supported_versions_begin_with_the_oldest_that_the_package_allows() -> None:
    versions = supported()
    assert f'requires-python = ">={versions[0]}"' in (ROOT / "pyproject.toml").read_text()
    assert versions == sorted(versions, key=lambda version: int(version.partition(".")[2]))
    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "README.md").read_text()


def test_the_newest_release_among_pyenvs_is_found_where_the_path_has_a_placeholder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("3.99.9", "3.99.10"):
        (tmp_path / "versions" / name / "bin").mkdir(parents=True)
    placeholder = interpreter(tmp_path, "python3.99", PLAIN, unsuitable=127)
    newest = interpreter(tmp_path / "versions" / "3.99.10" / "bin", "python", PLAIN)
    newest.write_text("#!/bin/sh\necho 3.99\n")
    assert find("3.99", tmp_path / "versions") == str(newest)
    placeholder.write_text("#!/bin/sh\necho 3.99\n")
    assert find("3.99", tmp_path / "versions") == str(placeholder)
    assert find("3.98", tmp_path / "versions") is None
