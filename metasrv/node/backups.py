"""What a node's services may ask of the backups that the leader makes by itself, and what is known about them.

The work is that of `metasrv/backup/`, which stands above the services. Plain values and a protocol. Used on the event
loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class ArchiveName(NamedTuple):
    """An archive of a cluster where its backups are kept, as its name and its entry there say."""

    name: str
    saved_at_ms: int
    """Wall clock of the node that made it."""
    log_index: int
    """The last entry that it has."""
    size_bytes: int


@dataclass(slots=True)
class BackupStanding:
    """How it went with this node's own backups. Times are of the wall clock."""

    running: bool = False
    attempts: int = 0
    """Attempts of this process that have ended."""
    last_saved_at_ms: int | None = None
    """When the newest good backup of the cluster was made, by whichever node; None if this node knows of none."""
    last_size_bytes: int | None = None
    last_duration_seconds: float | None = None
    """How long the newest one that this node made took."""
    failure: str = ""
    """Why the newest attempt failed; empty if it did not."""


class Backups(Protocol):
    """The schedule of one node."""

    standing: BackupStanding
    place: str
    """Where the archives go, in words."""

    def ask(self) -> int:
        """Have a backup made now; returns the number of the attempt that will have done it. Raises NotLeaderError."""
        ...

    async def archives(self) -> list[ArchiveName]:
        """The archives of this cluster, the oldest first. Raises BackupError."""
        ...
