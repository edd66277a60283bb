"""Keeps unit tests to computing: whatever would open a socket, sleep, or start a process fails with a sentence.

The failure is a `BaseException`, and is raised again at the end of the test, so that code under test which catches
every `Exception` cannot hide it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

SOCKET_METHODS = ("bind", "connect", "connect_ex", "listen", "sendto", "sendmsg")
PROCESS_FUNCTIONS = ("fork", "posix_spawn", "posix_spawnp")
NO_SOCKET = "a unit test opens no socket: move it to tests/socket"
NO_SLEEP = "a unit test does not wait: give it an event, or a clock that it moves"
NO_PROCESS = "a unit test starts no process: move it to tests/cluster; if the process ends at once, mark it `program`"


class UnitGuard:
    """Replaces the functions for one test; `seen` has a sentence for each forbidden call."""

    def __init__(self, patch: pytest.MonkeyPatch, *, may_start_programs: bool) -> None:
        self.seen: list[str] = []
        self._patch = patch
        for name in SOCKET_METHODS:
            self._forbid(socket.socket, name, f"socket.{name}: {NO_SOCKET}")
        self._forbid(socket, "getaddrinfo", f"socket.getaddrinfo: {NO_SOCKET}")
        if not may_start_programs:  # whoever waits for a program may poll
            self._forbid_sleep()
            self._forbid(subprocess.Popen, "__init__", f"subprocess: {NO_PROCESS}")
            for name in PROCESS_FUNCTIONS:
                self._forbid(os, name, f"os.{name}: {NO_PROCESS}")

    def fail_if_seen(self) -> None:
        if self.seen:
            pytest.fail("\n".join(self.seen))

    def _forbid(self, owner: Any, name: str, sentence: str) -> None:
        self._patch.setattr(owner, name, lambda *_, **__: self._refuse(sentence))

    def _forbid_sleep(self) -> None:
        really_sleep: Callable[[float], None] = time.sleep

        def sleep(seconds: float) -> None:
            if seconds > 0:
                self._refuse(f"time.sleep({seconds}): {NO_SLEEP}")
            really_sleep(0)

        self._patch.setattr(time, "sleep", sleep)

    def _refuse(self, sentence: str) -> None:
        self.seen.append(sentence)
        pytest.fail(sentence)


def names_left() -> list[str]:
    """The functions that a guard still replaces."""
    places: list[tuple[Any, str]] = [(socket.socket, name) for name in SOCKET_METHODS]
    places += [(socket, "getaddrinfo"), (time, "sleep"), (subprocess.Popen, "__init__")]
    places += [(os, name) for name in PROCESS_FUNCTIONS if hasattr(os, name)]
    return [name for owner, name in places if getattr(getattr(owner, name), "__module__", None) == __name__]
