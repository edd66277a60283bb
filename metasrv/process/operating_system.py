"""What differs between operating systems: syncing, SQLite's sync pragmas, descriptors, tracing, names of threads.

Supports Linux and macOS; `cli/__init__.py` refuses Windows. What a node runs calls these functions instead of asking for
the platform. Each function looks up the system's call when it is called, so that tests and the simulator can remove or
replace it. Knows no configuration and none of metasrv's files; callable from every thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sqlite3
import sys
import threading

_PR_SET_NAME = 15
_PR_SET_PTRACER = 0x59616D61
_PR_SET_PDEATHSIG = 1
_OPEN_MAX_MACOS = 10_240
"""macOS refuses a limit above this one even where it reports none."""


def sync_data(descriptor: int) -> None:
    """Bring a file's content, and its size, onto the disk. Raises OSError.

    fdatasync on Linux. On macOS fsync leaves the data in the drive's cache, so F_FULLFSYNC is asked for first; file
    systems without it (network shares) get fsync.
    """
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        sync_file(descriptor)


def sync_file(descriptor: int) -> None:
    """Sync like `sync_data`, with all of the file's attributes; works for directories too. Raises OSError."""
    full_sync: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        try:
            fcntl.fcntl(descriptor, full_sync)
        except OSError:
            os.fsync(descriptor)
    else:
        os.fsync(descriptor)


def sync_directory(path: str) -> None:
    """Make created, renamed and removed names in the directory `path` durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def make_syncs_full(connection: sqlite3.Connection) -> None:
    """Have SQLite sync as `sync_data` does; only macOS needs to be told."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")


def raise_descriptor_limit(wanted: int) -> None:
    """Raise the soft limit on open descriptors to `wanted`, or as far as the system lets this user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    for limit in (wanted, min(wanted, _OPEN_MAX_MACOS)):
        if soft == resource.RLIM_INFINITY or soft >= limit:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError):  # macOS: above what the kernel gives, whatever the hard limit says
            continue
        return


def descriptor_limit() -> int:
    """The current limit on open descriptors; 2**31 if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def allow_tracing_by(process_id: int) -> None:
    """Let the process `process_id`, and no other, trace this one where Yama allows only ancestors; 0 revokes it.

    Does nothing except on Linux: elsewhere a tracer needs rights of its own (on macOS, root).
    """
    if sys.platform == "linux":
        # Without Yama the call fails. Nothing was forbidden then, so the result does not matter.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(process_id), 0, 0, 0)


def usable_processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def die_with_parent(parent_id: int) -> bool:
    """Have the kernel kill this process when the thread that started it ends (Linux).

    Returns whether the process `parent_id` is still the parent; if not, it had ended before.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    return os.getppid() == parent_id


def return_unused_memory() -> bool:
    """Give free pages of the C library's heaps back to the system; whether it can (glibc). Lets other threads run.

    A thread that wants memory from the same heap meanwhile waits: about 0.1 ms for each MiB.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl, macOS
        return False
    malloc_trim(ctypes.c_size_t(0))
    return True


def resident_size_bytes() -> int | None:
    """Memory of this process that is in the machine's, or None where the system does not tell (macOS)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def resident_peak_bytes() -> int:
    """The most memory that this process has had in the machine's."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_limit_bytes() -> int | None:
    """What this process may use: its container's limit, or all the machine has; None where the system does not tell."""
    pages, page_size_bytes = os.sysconf("SC_PHYS_PAGES"), resource.getpagesize()
    limits = [pages * page_size_bytes] if pages > 0 else []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # another version of control groups, or "max"
            continue
    return min(limits, default=None)


def show_thread_name() -> None:
    """Tell the system the name of the calling thread, for `top -H` and `/proc`, as Python does itself from 3.14 on.

    Linux only, which keeps 15 bytes of it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, threading.current_thread().name.encode()[:15], 0, 0, 0)


def thread_processor_time_ns(native_id: int) -> int | None:
    """Processor time that a thread of this process has used, or None where the system does not tell (macOS)."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", encoding="ascii") as file:
            return int(file.read().split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        return None
