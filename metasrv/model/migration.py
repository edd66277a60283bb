"""The words of a migration, which moves the records of another cluster into this one: steps, records, and its marker.

The marker is replicated as a secret with a reserved name, so snapshots and hashes of the state carry it, and exports do
not show it. Must not know the command (`commands.py`). Pure; runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from metasrv.model.errors import CodecError
from metasrv.model.wire import pack, string, unpack, unsigned

MIGRATION_NAME = "migration"
"""The name of the secret that is the marker."""
_FORMAT = 1


class MigrationStep(IntEnum):
    """What the command `Migrate` does."""

    BEGIN = 0
    """Let the empty cluster take records from elsewhere, or a newer run of the same migration take over."""
    STORE = 1
    """Store and delete records."""
    CLEAR = 2
    """Delete `count` records, in key order."""
    FINISH = 3
    """End the migration, with exactly `count` records."""
    ABORT = 4
    """End it without any record."""


class MigratedRecord(NamedTuple):
    """A record as it stands elsewhere; without `data` it says that the record of number `seq` was deleted there."""

    key: str
    seq: int
    data: bytes | None
    expire_at: int | None = None
    proposed_at_ms: int = 0


class Migration(NamedTuple):
    """Who moves what."""

    source: str
    """The cluster that records come from."""
    run: int
    """Counts who leads it; steps of earlier runs are refused."""


def migration_out(migration: Migration) -> bytes:
    return pack((_FORMAT, *migration))


def migration_in(data: bytes) -> Migration:
    """Raises CodecError."""
    try:
        version, source, run = unpack(data)
        if version != _FORMAT:
            raise ValueError(f"its format is {version!r}")
        return Migration(string(source), unsigned(run))
    except (TypeError, ValueError) as error:
        raise CodecError(f"not the marker of a migration: {error}") from error


def migration_among(secrets: Mapping[str, bytes]) -> Migration | None:
    """The migration whose marker stands among the replicated secrets; None without one. Raises CodecError."""
    data = secrets.get(MIGRATION_NAME)
    return None if data is None else migration_in(data)
