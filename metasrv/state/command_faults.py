"""Applying one command so that whatever is wrong with it is told from a fault of the disk.

Never leaves `machine.py` as an error: the entry is applied again without the command. Runs where entries are applied.
"""

from __future__ import annotations

import sqlite3

from metasrv.model import commands as c
from metasrv.model.errors import MetasrvError
from metasrv.state.command_rules import apply_command
from metasrv.state.effects import EntryEffects, RefusedCommandError
from metasrv.state.write_limits import apply_within_limits


class CommandFaultError(Exception):
    """The command at `position` cannot be applied; the entry is applied again without it."""

    def __init__(self, position: int, text: str) -> None:
        super().__init__(text)
        self.position = position
        self.text = text


def apply_guarded(effects: EntryEffects, position: int, command: c.Command) -> c.Reply:
    """The command's reply; whatever is wrong with the command itself becomes a CommandFaultError."""
    try:
        return apply_within_limits(effects, command, apply_command)
    except RefusedCommandError as error:
        raise CommandFaultError(position, str(error)) from error
    except sqlite3.DataError as error:
        raise CommandFaultError(position, f"the command does not fit the store: {error}") from error
    except (sqlite3.Error, MetasrvError, MemoryError):
        raise
    except Exception as error:
        # `apply` is total (invariant 2). The same command fails in the same way on every node.
        raise CommandFaultError(position, f"the command cannot be applied: {type(error).__name__}") from error
