"""The families about backups that the leader makes by itself: `metasrv_backup_*`, where they are configured.

Pure functions over counters; must not know who counts or who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.metrics.counters import BackupCounters
from metasrv.metrics.exposition import Family, Labels, gauge, labelled

BACKUP = "metasrv_backup_"


def backup_families(backup: BackupCounters) -> Iterator[Family]:
    """Nothing on a node without a schedule."""
    if not backup.every_seconds:
        return
    yield gauge(f"{BACKUP}interval_seconds", "How often a backup is to be made.", backup.every_seconds)
    if backup.last_success_at is not None:
        text = "When the newest good backup of the cluster was made, 0 for never; leader only."
        yield gauge(f"{BACKUP}last_success_timestamp_seconds", text, backup.last_success_at)
    yield gauge(f"{BACKUP}failing", "1 while the newest attempt of this node, which leads, failed.", int(backup.failing))
    outcomes: dict[Labels, float] = {(("outcome", name),): count for name, count in backup.outcomes.items()}
    yield labelled(f"{BACKUP}attempts_total", "counter", "Backups that this node tried to make.", outcomes)
    if backup.last_size_bytes is not None:
        yield gauge(f"{BACKUP}last_size_bytes", "Bytes of the last backup that this node made.", backup.last_size_bytes)
    if backup.last_duration_seconds is not None:
        text = "How long that took, with the check."
        yield gauge(f"{BACKUP}last_duration_seconds", text, backup.last_duration_seconds)
