"""metactl and metasrv as processes: what an operator types, for tests of backups and recovery."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

TIMEOUT_SECONDS = 120.0


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def metactl(
    *arguments: object, given: bytes = b"", code: int = 0, environment: Mapping[str, str] | None = None
) -> Ran:
    """Run metactl; the test fails unless it ends with `code`."""
    return await _run("metasrv.cli.ctl", arguments, given, code, environment or {})


async def metasrv(*arguments: object, code: int = 0) -> Ran:
    """Run a command of metasrv that ends by itself; the test fails unless it ends with `code`."""
    return await _run("metasrv.cli.server", arguments, b"", code, {})


async def _run(
    module: str, arguments: tuple[object, ...], given: bytes, code: int, environment: Mapping[str, str]
) -> Ran:
    def run() -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            input=given,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, **environment},
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    ran = await asyncio.to_thread(run)
    assert ran.code == code, f"{module} {arguments}: {ran}"
    return ran
