"""How many files and connections this process may have open, and how many of them clients may use up.

Clients come in unbounded numbers: one that leaks its connections must not take the descriptors that the log, snapshots,
peers and the admin API need. Runs once at the start, and when a listener opens.
"""

from __future__ import annotations

from metasrv.model.limits import ADMIN_CONNECTIONS_MAX, GRPC_CONNECTIONS_MAX, OPEN_FILES_RESERVED, OPEN_FILES_WANTED
from metasrv.process.operating_system import descriptor_limit, raise_descriptor_limit


def raise_open_files() -> int:
    """Take what the system lets this user take, `OPEN_FILES_WANTED` at most; returns the limit from now on."""
    raise_descriptor_limit(OPEN_FILES_WANTED)
    return descriptor_limit()


def client_connections_max(open_files: int) -> int:
    """Connections of clients to the gRPC port with so many descriptors: what the node itself does not need.

    Half of them where they are few.
    """
    return min(GRPC_CONNECTIONS_MAX, max(open_files - OPEN_FILES_RESERVED, open_files // 2))


def admin_connections_max(open_files: int) -> int:
    """Connections to the admin API, likewise."""
    return min(ADMIN_CONNECTIONS_MAX, open_files // 8)


def open_files_warning(open_files: int) -> str | None:
    """What an operator should know of a low limit, None of one that does."""
    connections = client_connections_max(open_files)
    if connections >= GRPC_CONNECTIONS_MAX // 4:
        return None
    return (
        f"this process may have {open_files} files and connections open, so clients get {connections} connections; "
        f"raise the limit (LimitNOFILE, ulimit -n) to {OPEN_FILES_WANTED}"
    )
