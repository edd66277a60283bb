"""`metasrv recover`, `check` and `downgrade-check`: what the server's program does with a data directory beside running.

Prints; the work is that of `metasrv/backup/`. Runs in the foreground of a short process.
"""

from __future__ import annotations

import os

from metasrv import __version__
from metasrv.backup.checking import check_directory
from metasrv.backup.downgrading import conclusion, findings_for, overall
from metasrv.backup.looking import look_at
from metasrv.backup.recovering import recovery
from metasrv.cli.options import LOST_MAJORITY
from metasrv.config.model import Config
from metasrv.model.errors import ConfigError, DataDamagedError, FatalError, RecoveryRefusedError
from metasrv.model.releases import RELEASES, release_named
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


def downgrade_check(root: str, to: str) -> int:
    """Print whether the release `to` can take the directory over. Returns the exit code. Raises FatalError."""
    release = release_named(to)
    if release is None:
        known = ", ".join(known.name for known in RELEASES)
        raise ConfigError([f"release {to} is not known to this one, metasrv {__version__}, which knows {known}"])
    findings = findings_for(look_at(root), release)
    for finding in findings:
        for line in finding.lines():
            print_text(line)
    answer = overall(findings)
    print_text(conclusion(answer, release))
    return int(answer)


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
