"""`metasrv recover` and `metasrv check`: what the server's program does with the directory of a stopped node.

Prints; the work is that of `metasrv/backup/`. Runs in the foreground of a short process.
"""

from __future__ import annotations

import os

from metasrv.backup.checking import check_directory
from metasrv.backup.recovering import recovery
from metasrv.cli.options import LOST_MAJORITY
from metasrv.config.model import Config
from metasrv.model.errors import DataDamagedError, FatalError, RecoveryRefusedError
from metasrv.process.clock import SystemClock
from metasrv.process.standard_streams import STANDARD_OUTPUT


def recover(config: Config, lost_majority: bool) -> int:
    """Print the plan; carry it out with `lost_majority`. Returns the exit code. Raises FatalError."""
    with recovery(config, SystemClock()) as (plan, carry_out):
        for line in plan.lines():
            print_text(line)
        refusal = plan.refusal()
        if refusal:
            raise RecoveryRefusedError(f"refused, and nothing was changed: {refusal}")
        if not lost_majority:
            raise RecoveryRefusedError(f"nothing was changed; {LOST_MAJORITY} carries the plan out")
        aside = carry_out()
    print_text(f"done: the old data is in {aside}")
    print_text("start this node; move the data of the others away and let them join it; restart the clients")
    return 0


def check(root: str) -> int:
    """Print what each part of the directory is like. Returns the exit code. Raises FatalError."""
    damaged = False
    for finding in check_directory(root):
        for line in finding.lines():
            print_text(line)
        damaged = damaged or finding.damaged
    print_text("damaged" if damaged else "sound")
    return DataDamagedError.exit_code if damaged else 0


def print_text(text: str) -> None:
    """Print what a command was run for. Raises FatalError when standard output does not take all of it.

    A reader that has enough of it (`head`, perhaps) is no error.
    """
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STANDARD_OUTPUT, data) :]
    except BrokenPipeError:
        return
    except OSError as error:
        raise FatalError(f"standard output cannot be written: {error.strerror}") from error
