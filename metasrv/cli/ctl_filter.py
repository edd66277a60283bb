"""`metactl filter-tenant`: makes an export of one tenant from an export of all.

Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from metasrv.backup.filtering import TenantFilter
from metasrv.cli.ctl_grpc import write_lines
from metasrv.cli.terminal import note
from metasrv.model.errors import BackupError, InvalidRequestError


def filter_tenant(arguments: argparse.Namespace) -> None:
    if not arguments.tenant:
        raise InvalidRequestError("--tenant is empty")
    with _opened(arguments.input) as (source, name):
        filtered = TenantFilter(source, name, arguments.tenant, note)
        filtered.decide()
        write_lines(filtered.lines(), arguments.output)
    note(filtered.report.text())


@contextmanager
def _opened(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """The input, in a form that can be read again: what comes through a pipe is kept in a file first."""
    if path in ("", "-") and sys.stdin is None:
        raise BackupError("standard input is closed")
    name = path if path not in ("", "-") else "standard input"
    try:
        source = sys.stdin.buffer if name != path else open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if source.seekable() and name == path:
            yield source, name
            return
        with tempfile.TemporaryFile() as kept:
            shutil.copyfileobj(source, kept)
            yield kept, name
    finally:
        if name == path:
            source.close()
