"""A load of writers that each own a key, and read back what they wrote: every answer is right, wrong or an error.

Also asks a probe all the time, as an orchestrator does. Knows a cluster's outside only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from metasrv.client import AsyncClient
from metasrv.model.errors import MetasrvError

WRITERS = 8
PAUSE_SECONDS = 0.02
PROBE_PAUSE_SECONDS = 0.1
LOGIN_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Outcome:
    """What happened while an attack went on."""

    operations: int = 0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    """The slowest write with the read after it."""
    longest_login_seconds: float = 0.0
    """The slowest login of a new client, with a read after it."""
    probes_failed: int = 0
    longest_probe_seconds: float = 0.0


async def write_and_check(client: AsyncClient, number: int, outcome: Outcome) -> None:
    """Write a key of one's own and read it, until cancelled."""
    count = 0
    possible: set[bytes | None] = {None}
    while True:
        count += 1
        value = b"%d" % count
        started = time.monotonic()
        try:
            possible = possible | {value}
            await client.upsert(f"load/{number}", value)
            possible = {value}
            record = await client.get(f"load/{number}")
            found = None if record is None else record.data
            if found not in possible:
                outcome.wrong.append(f"load/{number}: {found!r} instead of {possible!r}")
        except MetasrvError as error:
            outcome.errors.append(f"{type(error).__name__}: {error}")
        outcome.operations += 1
        outcome.longest_seconds = max(outcome.longest_seconds, time.monotonic() - started)
        await asyncio.sleep(PAUSE_SECONDS)


async def log_in_and_read(clients: Iterable[AsyncClient], outcome: Outcome) -> None:
    """Have one client after the other log in and read a key, until cancelled or until there is no further one."""
    for client in clients:
        started = time.monotonic()
        async with client:
            try:
                await client.get("load/0")
            except MetasrvError as error:
                outcome.errors.append(f"at a login: {type(error).__name__}: {error}")
        outcome.operations += 1
        outcome.longest_login_seconds = max(outcome.longest_login_seconds, time.monotonic() - started)
        await asyncio.sleep(LOGIN_PAUSE_SECONDS)


async def probe(ask: Callable[[], Awaitable[tuple[int, str]]], outcome: Outcome) -> None:
    """Ask whether the node lives, on a new connection each time, until cancelled."""
    while True:
        started = time.monotonic()
        try:
            code, _ = await ask()
        except (OSError, EOFError, TimeoutError):
            code = 0
        outcome.probes_failed += code != 200
        outcome.longest_probe_seconds = max(outcome.longest_probe_seconds, time.monotonic() - started)
        await asyncio.sleep(PROBE_PAUSE_SECONDS)
