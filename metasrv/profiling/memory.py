"""Heap profiles of this process, by memray.

memray hooks the allocators of the running process; it sees what is allocated while it watches, not what was there
before. It keeps totals instead of events, so that a capture stays small. Hooking and unhooking take tens of milliseconds
and happen in a helper thread; only from there does memray see the callers of the event loop's own frames. A child
process reads the capture, because that takes seconds of pure computing. Must not know HTTP. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from metasrv.process.temporary_directories import make_temporary_directory
from metasrv.profiling.profile import Profile, ProfileFormat, ProfilerBusyError, ProfilerUnavailableError, ProfilingError

if TYPE_CHECKING:
    from memray import Tracker

MEMRAY = "memray"
REPORT_TIMEOUT_SECONDS = 120.0
REPORT_MODULE = "metasrv.profiling.heap_report"


async def record_memory(seconds: int, profile_format: ProfileFormat) -> Profile:
    """Watch allocations for `seconds`; the form is one of `MEMORY_FORMATS`. Cancellation ends the watch.

    Raises ProfilerUnavailableError, ProfilerBusyError (memray already watches this process), ProfilingError.
    """
    started_ns = time.time_ns()
    directory = await asyncio.to_thread(make_temporary_directory, "heap")
    capture = os.path.join(directory, "capture.bin")
    try:
        await _watch(capture, seconds)
        path = capture
        if profile_format is not ProfileFormat.MEMRAY:
            path = os.path.join(directory, "report")
            duration_ns = seconds * 1_000_000_000
            await _report(capture, path, profile_format.value, str(started_ns), str(duration_ns))
        return Profile(await asyncio.to_thread(_read_file, path), profile_format, MEMRAY)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _watch(capture: str, seconds: float) -> None:
    """Capture allocations; the hooks are removed afterwards, whatever happens meanwhile."""
    starting = asyncio.ensure_future(asyncio.to_thread(_start, capture))
    try:
        await asyncio.shield(starting)
        await asyncio.sleep(seconds)
    finally:
        # Also if this was cancelled during the start: hooks left behind would slow the process down forever.
        await asyncio.shield(asyncio.to_thread((await starting).__exit__, None, None, None))


def _start(capture: str) -> Tracker:
    try:
        # Imported when first used: it takes memory that most nodes never need.
        from memray import FileDestination, FileFormat, Tracker
    except ImportError as error:
        raise ProfilerUnavailableError(f"memory profiling needs memray, which cannot be loaded: {error}") from error
    try:
        tracker = Tracker(
            destination=FileDestination(capture, compress_on_exit=False),
            trace_python_allocators=True,
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
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", REPORT_MODULE, *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await asyncio.wait_for(process.communicate(), REPORT_TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise ProfilingError(f"the capture was not read within {REPORT_TIMEOUT_SECONDS:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise ProfilingError(f"the capture could not be read: {lines[-1] if lines else process.returncode}")


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
