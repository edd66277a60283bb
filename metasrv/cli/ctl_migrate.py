"""metactl's command that moves another cluster's records here: copy, follow, cut over, or abort.

Runs in the foreground until it is interrupted, or until the end that was asked for. The work is that of
`metasrv/migration/`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from metasrv.cli import source_switch
from metasrv.cli.ctl_grpc import PASSWORD_VARIABLE, PASSWORD_WITHOUT_ANY
from metasrv.cli.migrate_options import SOURCE, TARGET
from metasrv.cli.progress import Progress
from metasrv.cli.terminal import note, show
from metasrv.client import AsyncClient
from metasrv.client.connection import Credentials
from metasrv.migration.following import Migration
from metasrv.migration.source import Source
from metasrv.migration.standstill import Standstill
from metasrv.migration.target import Target
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import Endpoint

_TARGET_TIMEOUT_MS = 15_000


def migrate(arguments: argparse.Namespace) -> None:
    """Copy the source into the target and follow it; end the migration when that is asked for."""
    if not arguments.abort and not arguments.from_address:
        raise InvalidRequestError("--from is missing: where are the records to come from?")
    switch = source_switch.of(arguments)
    standstill = None if switch is None else Standstill(switch)
    asyncio.run(_abort(arguments) if arguments.abort else _interruptible(_migrate(arguments, standstill)))


class _Shown:
    """What happens, on standard error."""

    def __init__(self) -> None:
        self._progress = Progress("")

    def progress(self, text: str) -> None:
        self._progress.say(text)

    def note(self, text: str) -> None:
        self._progress.end()
        note(text)

    def end(self) -> None:
        self._progress.end()


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Let the end of a terminal and SIGTERM end the work in order, as Ctrl-C does: the source is not left read-only."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    if threading.current_thread() is threading.main_thread():  # no other one hears of signals
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _migrate(arguments: argparse.Namespace, standstill: Standstill | None) -> None:
    shown = _Shown()

    async def run(target: Target) -> None:
        source = Source(_addresses(arguments, SOURCE), _credentials(arguments, SOURCE))
        migration = Migration(
            source,
            target,
            shown,
            directory=arguments.work_directory,
            quiet_seconds=arguments.quiet_seconds,
            standstill=standstill,
        )
        try:
            outcome = await migration.run(cut_over=arguments.cut_over)
        finally:
            shown.end()
            await source.close()
        show(f"equal: {outcome.key_count} keys, compared one by one; the last sequence number is {outcome.last_seq}")
        show(f"the migration is ended; let clients use {', '.join(outcome.addresses) or arguments.to_address}")
        if outcome.is_left_read_only:
            address = arguments.from_admin_api_address
            show("the source stays read-only, so that nobody writes there by mistake; this ends that:")
            show(f"metactl cluster read-only off --admin-api-address {address}")

    await _with_target(arguments, run)


async def _abort(arguments: argparse.Namespace) -> None:
    async def run(target: Target) -> None:
        show(f"the migration is aborted; {await target.abort()} keys that were copied are deleted")

    await _with_target(arguments, run)


# ----------------------------------------------------------------------------- parts


async def _with_target(arguments: argparse.Namespace, run: Callable[[Target], Awaitable[None]]) -> None:
    who = _credentials(arguments, TARGET)
    async with AsyncClient(
        _addresses(arguments, TARGET),
        username=who.username,
        password=who.password,
        timeout_ms=_TARGET_TIMEOUT_MS,
        tls_ca_file=who.tls_ca_file,
        tls_server_name=who.tls_server_name,
        tls_cert_file=who.tls_cert_file,
        tls_key_file=who.tls_key_file,
    ) as client:
        await run(Target(client))


def _addresses(arguments: argparse.Namespace, side: str) -> list[str]:
    texts = getattr(arguments, f"{side}_address").split(",")
    addresses = [text.strip() for text in texts if text.strip()]
    if not addresses:
        raise InvalidRequestError(f"--{side} names no address")
    for address in addresses:
        try:
            Endpoint.parse(address)
        except ValueError as error:
            raise InvalidRequestError(f"--{side}: {error}") from error
    return addresses


def _credentials(arguments: argparse.Namespace, side: str) -> Credentials:
    def given(name: str) -> str | None:
        value: str | None = getattr(arguments, f"{side}_grpc_{name}")
        return value

    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        _check_readable(given(name))
    variable = PASSWORD_VARIABLE.replace("METASRV_", f"METASRV_{side.upper()}_")
    password = os.environ.get(variable) or os.environ.get(PASSWORD_VARIABLE, PASSWORD_WITHOUT_ANY)
    return Credentials(
        given("user") or "",
        password,
        given("tls_ca_file"),
        given("tls_server_name"),
        given("tls_cert_file"),
        given("tls_key_file"),
    )


def _check_readable(path: str | None) -> None:
    """Connections read the files later, each for itself; say now what is wrong with one."""
    if path is None:
        return
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}") from error
