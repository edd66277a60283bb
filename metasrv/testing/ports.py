"""Ports for test nodes that nothing else takes, even while a node is down.

A port is taken from below the kernel's ephemeral range, so that no outgoing connection gets it, and stays locked by a
file in the temporary directory until it is given back, so that parallel test processes never choose the same one.
"""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from pathlib import Path

from metasrv.cli.node_process import is_port_free
from metasrv.model.types import Endpoint

PORT_MIN = 15_000
PORT_MAX = 31_999
ATTEMPTS_MAX = 1_000


class PortReservation:
    """Locked loopback ports; `release` gives them back, as the end of the process does."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"metasrv-test-ports-{os.getuid()}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._locks: dict[int, int] = {}
        self._random = random.Random(os.urandom(8))  # noqa: S311 - a spread, not a secret

    def take(self) -> int:
        """Lock a free port; returns it."""
        for _ in range(ATTEMPTS_MAX):
            port = self._random.randint(PORT_MIN, PORT_MAX)
            if port in self._locks or not self._lock(port):
                continue
            if is_port_free(Endpoint("127.0.0.1", port)):
                return port
            self._unlock(port)
        raise RuntimeError(f"no free port between {PORT_MIN} and {PORT_MAX} in {ATTEMPTS_MAX} attempts")

    def release(self) -> None:
        for port in list(self._locks):
            self._unlock(port)

    def _lock(self, port: int) -> bool:
        descriptor = os.open(self._directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[port] = descriptor
        return True

    def _unlock(self, port: int) -> None:
        os.close(self._locks.pop(port))
