"""What a node takes from its service manager's environment, and what its version says of the build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metasrv import __version__
from metasrv.process.build_info import COMPILED_LIBRARY, UNKNOWN_COMMIT, binary_version, build_commit
from metasrv.process.service_manager import ServiceManager


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000"}, 30.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "/run/x"}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
        ({}, None),
    ],
)
def test_the_environment_is_read_and_taken_away(variables: dict[str, str], seconds: float | None) -> None:
    environment = {"PATH": "/bin", **variables}
    manager = ServiceManager.from_environment(environment)
    assert environment == {"PATH": "/bin"}, "children must not speak for this process"
    assert manager._address == variables.get("NOTIFY_SOCKET")
    assert manager._watchdog_seconds == seconds


def test_the_version_of_a_build_carries_its_commit() -> None:
    assert binary_version(build_commit({"METASRV_COMMIT": "1ed2298a0c11"})) == f"{__version__}+1ed2298a0c11"
    assert binary_version(build_commit({})) == binary_version(build_commit({"METASRV_COMMIT": ""})) == __version__


def test_the_version_says_when_it_is_the_compiled_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{COMPILED_LIBRARY}.py").touch()
    assert binary_version("1ed2298a0c11") == f"{__version__}+1ed2298a0c11.compiled"
    assert binary_version(UNKNOWN_COMMIT) == binary_version(UNKNOWN_COMMIT, compiled=True) == f"{__version__}+compiled"
    assert binary_version(UNKNOWN_COMMIT, compiled=False) == __version__
