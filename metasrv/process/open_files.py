"""How many files and connections this process may have open, and how many of them clients may use.

Clients come in unbounded numbers: one that leaks its connections must not take the descriptors that the log, snapshots,
peers and the admin API need. Runs once at the start, and when a listener opens.
"""

from __future__ import annotations

from metasrv.model.limits import ADMIN_CONNECTIONS_MAX, GRPC_CONNECTIONS_MAX, OPEN_FILES_RESERVED, OPEN_FILES_WANTED
from metasrv.process.operating_system import descriptor_limit, raise_descriptor_limit


def raise_open_files() -> int:
    """Raise the limit as far as the system allows, to `OPEN_FILES_WANTED` at most; returns the limit that now holds."""
    raise_descriptor_limit(OPEN_FILES_WANTED)
    return descriptor_limit()


def client_connections_max(open_files: int) -> int:
    """How many client connections the gRPC port takes, out of `open_files` descriptors.

    Those that the node does not need itself; half of them if there are few.
    """
    return min(GRPC_CONNECTIONS_MAX, max(open_files - OPEN_FILES_RESERVED, open_files // 2))


def admin_connections_max(open_files: int) -> int:
    """How many connections the admin API takes, out of `open_files` descriptors."""
    return min(ADMIN_CONNECTIONS_MAX, open_files // 8)


def open_files_warning(open_files: int) -> str | None:
    """A warning if the limit leaves clients few connections, else None."""
    connections = client_connections_max(open_files)
    if connections >= GRPC_CONNECTIONS_MAX // 4:
        return None
    return (
        f"this process may have {open_files} files and connections open, so clients get {connections} connections; "
        f"raise the limit (LimitNOFILE, ulimit -n) to {OPEN_FILES_WANTED}"
    )
