"""The first key that a command names, for a line about it. Pure."""

from __future__ import annotations

from metasrv.model import commands as c


def first_key(command: c.Command) -> str:
    """The first key or prefix; empty for a command without one."""
    if isinstance(command, c.Upsert):
        return command.key
    if isinstance(command, c.Transaction):
        for condition in command.conditions:
            return condition.key
        for operation in (*command.if_then, *command.else_then):
            return _key_of(operation)
    if isinstance(command, c.Transaction | c.BranchTransaction):
        for branch in command.branches:
            for operation in branch.operations:
                return _key_of(operation)
    return ""


def _key_of(operation: c.TransactionOperation) -> str:
    return operation.prefix if isinstance(operation, c.DeleteByPrefix | c.PutSequential) else operation.key
