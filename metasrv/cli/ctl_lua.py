"""`metactl lua`: runs scripts that read, write and operate a cluster (docs/contract/admin-api.md section 4.1).

Runs in the foreground of a short process; the interpreter stands in `metasrv/cli/scripting/`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from metasrv.cli import ctl_admin, ctl_grpc
from metasrv.cli.scripting.runtime import ScriptExitError, ScriptRunner, Source
from metasrv.cli.scripting.services import Services
from metasrv.cli.terminal import finish_output, note, show_bytes
from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError


def run_scripts(arguments: argparse.Namespace) -> None:
    """Run the scripts in the order in which they were named; standard input when none was."""
    sources = [_source(kind, text, number) for number, (kind, text) in enumerate(arguments.sources or (), 1)]
    if not sources:
        if sys.stdin is None:
            raise InvalidRequestError("there is no script: standard input is closed")
        sources = [Source("=stdin", sys.stdin.buffer.read())]
    try:
        asyncio.run(_run(sources, arguments))
    except ScriptExitError as ended:
        raise SystemExit(ended.code) from None


def _source(kind: str, text: str, number: int) -> Source:
    if kind == "script":
        return Source(f"=script {number}", text.encode("utf-8", "surrogateescape"))
    try:
        with open(text, "rb") as file:
            source = file.read()
    except OSError as error:
        raise InvalidRequestError(f"{text} cannot be read: {error.strerror}") from error
    if source.startswith(b"#"):
        source = b"--" + source  # the line that names the interpreter
    return Source(f"@{text}", source)


async def _run(sources: list[Source], arguments: argparse.Namespace) -> None:
    def connect(address: str) -> AsyncClient:
        return ctl_grpc.made(AsyncClient, address, "the address", arguments)

    services = Services(connect, lambda address: ctl_admin.made(address, arguments))
    runner = ScriptRunner(services, show_bytes, finish_output)
    runner.report = lambda sentence: note(f"Error: {sentence}")
    try:
        with _interruptible(runner):
            await runner.run(sources)
    finally:
        await services.close()


@contextmanager
def _interruptible(runner: ScriptRunner) -> Iterator[None]:
    """Let Ctrl-C end a script that never waits, too: its errors would otherwise be the script's to catch."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        runner.interrupt()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
