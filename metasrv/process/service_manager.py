"""Tells systemd that this process is ready, stopping or alive (`Type=notify`).

Sends datagrams to the socket named by NOTIFY_SOCKET, as sd_notify(3) describes; nothing if that variable is not set.
Knows nothing of nodes. Runs on the event loop; a send never blocks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, MutableMapping

logger = logging.getLogger(__name__)

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_PERIOD_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PROCESS_VARIABLE = "WATCHDOG_PID"
BEATS_PER_WATCHDOG_PERIOD = 3
"""Two of three beats may be late before systemd considers the process dead."""


class ServiceManager:
    """The service manager that started this process, if there is one."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        """`address` is a path, or an abstract name after `@`; `watchdog_seconds` is the longest silence allowed."""
        self._address = address
        self._watchdog_seconds = watchdog_seconds if address else None
        self._complained = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Read the variables and remove them, so that children do not speak for this process."""
        address = environment.pop(SOCKET_VARIABLE, None) or None
        period = environment.pop(WATCHDOG_PERIOD_VARIABLE, "")
        process = environment.pop(WATCHDOG_PROCESS_VARIABLE, "")
        for_this_process = process in ("", str(os.getpid()))
        seconds = int(period) / 1_000_000 if period.isascii() and period.isdigit() and for_this_process else 0.0
        return cls(address, seconds or None)

    def ready(self, status: str) -> None:
        """Say that the service has started; `status` is one line for `systemctl status`."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    async def keep_watchdog(self, is_alive: Callable[[], bool]) -> None:
        """Say that the process lives while `is_alive`; returns at once when no watchdog was asked for, else never."""
        if self._watchdog_seconds is None:
            return
        while True:
            if is_alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / BEATS_PER_WATCHDOG_PERIOD)

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(text.encode(), address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                logger.warning("the service manager at %s cannot be told about this process: %s", self._address, error)
