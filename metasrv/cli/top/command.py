"""`metactl top`: the cluster in a terminal, live, or one frame of it as text.

Runs in the foreground; loaded only for this command, because it brings rich along.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys

from rich.console import Console

from metasrv.cli.ctl_admin import made
from metasrv.cli.terminal import finish_output, show
from metasrv.cli.top.screen import Screen, is_ascii_only
from metasrv.cli.top.source import Source
from metasrv.cli.top.view import Look, frame

PLAIN_WIDTH = 100
"""Where there is no terminal, and COLUMNS says nothing."""


def top(arguments: argparse.Namespace) -> None:
    """Follow the cluster until `q`; without a terminal, and with `--once`, print one frame. Raises as `AdminClient`."""
    addresses = [address.strip() for address in arguments.admin_api_address.split(",")]
    source = Source(addresses, lambda address: made(address, arguments), tls=arguments.admin_tls_ca_file is not None)
    source.first()
    if arguments.once or not _is_terminal():
        _print_once(source)
        return
    Screen(source, arguments.interval).run()


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


def _print_once(source: Source) -> None:
    if not _is_terminal():
        ascii_only = sys.stdout is not None and is_ascii_only(sys.stdout)
        width = shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns
        for line in frame(source.latest, Look(width, ascii_only=ascii_only)):
            show(line.plain)
        return
    styled = io.StringIO()
    width = shutil.get_terminal_size().columns
    console = Console(file=styled, force_terminal=True, width=width, highlight=False)
    for line in frame(source.latest, Look(width, ascii_only=is_ascii_only(sys.stdout))):
        console.print(line, crop=False, overflow="ignore", no_wrap=True)
    sys.stdout.write(styled.getvalue())
    finish_output()
