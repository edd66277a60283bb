"""Heap profiles of this process, by memray.

memray hooks the allocators of the running process; it sees what is allocated while it watches, not what was there
before. It keeps totals instead of events, so that a capture stays small. Hooking takes about 6 ms and unhooking 10 to 20,
both with the interpreter's lock held; they happen in a helper thread, because only from there does memray see the callers
of the event loop's own frames. A child process of low priority reads the capture, because that takes seconds of pure
computing. It is started without a copy of this process's page tables, which takes tens of milliseconds when the process
is large. Must not know HTTP. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from metasrv.process.temporary_directories import make_temporary_directory
from metasrv.profiling.captures import Capture, Captures
from metasrv.profiling.profile import (
    Profile,
    ProfileFormat,
    ProfilerBusyError,
    ProfilerUnavailableError,
    ProfilingError,
    Subject,
)

if TYPE_CHECKING:
    from memray import Tracker

MEMRAY = "memray"
REPORT_TIMEOUT_SECONDS = 120.0
REPORT_MODULE = "metasrv.profiling.heap_report"
COLLECTOR_CRASHES = sys.version_info < (3, 11, 3)
"""Whether collecting garbage beside memray's hook on calls may end the process (python/cpython#101975).

The collector of these versions follows stale places in the frame of a running coroutine. Debian 12 has 3.11.2.
"""


def load_profiler() -> None:
    """Import memray before anybody is served: beside the event loop it would take the interpreter for some 50 ms.

    Without memray nothing happens; a profile will say that it is missing.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("memray")


async def record_memory(
    node_id: int,
    seconds: int,
    profile_format: ProfileFormat,
    captures: Captures,
    base: Capture | None = None,
    small_objects: bool = False,
) -> Profile:
    """Watch allocations for `seconds`; the form is one of `MEMORY_FORMATS`. Cancellation ends the watch.

    With `small_objects` each object of at most 512 bytes counts, which makes this process much slower; otherwise only the
    arenas that Python keeps them in. The capture is kept in `captures`, except as memray's raw file; with `base`, an
    earlier one of them, the profile is the difference. Raises ProfilerUnavailableError, ProfilerBusyError (memray already
    watches this process), ProfilingError.
    """
    subject = Subject(node_id, time.time_ns(), seconds)
    directory = await asyncio.to_thread(make_temporary_directory, "heap")
    capture, report, kept = (os.path.join(directory, name) for name in ("capture.bin", "report", "kept"))
    try:
        await _watch(capture, seconds, small_objects)
        if profile_format is ProfileFormat.MEMRAY:
            return Profile(await asyncio.to_thread(_read_file, capture), profile_format, MEMRAY)
        arguments = [capture, report, profile_format.value, *map(str, subject), kept]
        if base is not None:
            arguments += [os.path.join(directory, "base"), str(base.subject.started_ns)]
            await asyncio.to_thread(_write_file, arguments[-2], base.body)
        await _report(*arguments)
        body = await asyncio.to_thread(_read_file, report)
        capture_id = captures.keep(subject, await asyncio.to_thread(_read_file, kept))
        return Profile(body, profile_format, MEMRAY, capture_id)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _watch(capture: str, seconds: float, small_objects: bool) -> None:
    """Capture allocations; the hooks are removed afterwards, whatever happens meanwhile."""
    collects = COLLECTOR_CRASHES and gc.isenabled()
    if collects:
        gc.disable()
    starting = asyncio.ensure_future(asyncio.to_thread(_start, capture, small_objects))
    try:
        await asyncio.shield(starting)
        await asyncio.sleep(seconds)
    finally:
        # Also if this was cancelled during the start: hooks left behind would slow the process down forever.
        await asyncio.shield(asyncio.ensure_future(_end(starting, collects)))


async def _end(starting: asyncio.Future[Tracker], collects: bool) -> None:
    """Remove the hooks, and let garbage be collected again if it was."""
    try:
        tracker = await starting
        await asyncio.to_thread(tracker.__exit__, None, None, None)
        sys.setprofile(None)  # now and then memray leaves its hook on the thread of the event loop
    finally:
        if collects:
            asyncio.get_running_loop().call_soon(gc.enable)  # no coroutine that was called with the hook runs by then


def _start(capture: str, small_objects: bool) -> Tracker:
    try:
        from memray import FileDestination, FileFormat, Tracker
    except ImportError as error:
        raise ProfilerUnavailableError(f"memory profiling needs memray, which cannot be loaded: {error}") from error
    try:
        tracker = Tracker(
            destination=FileDestination(capture, compress_on_exit=False),
            trace_python_allocators=small_objects,
            file_format=FileFormat.AGGREGATED_ALLOCATIONS,
        )
        tracker.__enter__()
    except RuntimeError as error:
        raise ProfilerBusyError(f"memray cannot start: {error}") from error
    except OSError as error:
        raise ProfilingError(f"memray cannot write its capture: {error}") from error
    return tracker


async def _report(*arguments: str) -> None:
    """Write the report of a capture in a child process, which does not outlive this call."""
    starting = asyncio.ensure_future(asyncio.to_thread(_start_report, arguments))
    reading: asyncio.Future[tuple[bytes, bytes]] | None = None
    try:
        process = await asyncio.shield(starting)
        reading = asyncio.ensure_future(asyncio.to_thread(process.communicate, timeout=REPORT_TIMEOUT_SECONDS))
        _, complaint = await asyncio.shield(reading)
    except subprocess.TimeoutExpired as error:
        raise ProfilingError(f"the capture was not read within {REPORT_TIMEOUT_SECONDS:.0f} s") from error
    finally:
        # Also if this was cancelled during the start. With the child ends the thread that waits for its words.
        child = await starting
        child.kill()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)
        await asyncio.to_thread(child.__exit__, None, None, None)
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise ProfilingError(f"the capture could not be read: {lines[-1] if lines else process.returncode}")


def _start_report(arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Python starts it with `vfork`, where asyncio's loop would copy the page tables of this process first."""
    return subprocess.Popen(  # noqa: S603 - this program itself
        (sys.executable, "-m", REPORT_MODULE, *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write_file(path: str, body: bytes) -> None:
    with open(path, "wb") as file:
        file.write(body)
