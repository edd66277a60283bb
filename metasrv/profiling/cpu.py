"""CPU profiles of this process: by py-spy where it may attach, else by an in-process sampler.

py-spy runs as a child of lowest priority and reads this process's memory from outside, so the event loop only waits for
it. It does not stop this process for a sample: while it waited for a processor, so would every request. Some samples are
torn for that, and left out. Attaching to one's parent needs a permission that containers often lack (a Yama restriction
is lifted here for that child alone). Without it the in-process sampler takes the profile, and the result says so. Must
not know HTTP. Runs on the event loop; starting the child, reading its file and encoding happen in a helper thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time

from metasrv.process.operating_system import allow_tracing_by
from metasrv.process.temporary_directories import make_temporary_directory
from metasrv.profiling.forms import CPU, encode_times
from metasrv.profiling.profile import Profile, ProfileFormat, Subject
from metasrv.profiling.sampler import sample_threads
from metasrv.profiling.stacks import StackSample, is_waiting, merge, parse_folded

logger = logging.getLogger(__name__)

PY_SPY = "py-spy"
IN_PROCESS = "in-process"
LOWEST_PRIORITY = 19
PY_SPY_OVERTIME_SECONDS = 15.0
"""How long py-spy may take to write its file once the requested time is over."""


async def record_cpu(
    node_id: int, seconds: int, frequency_hertz: int, profile_format: ProfileFormat, idle: bool = False
) -> Profile:
    """Profile this process for `seconds`; the form is one of `CPU_FORMATS`. Cancellation ends the profiler.

    With `idle` threads are shown while they wait as well.
    """
    subject = Subject(node_id, time.time_ns(), seconds)
    program = find_py_spy()
    recorded = None
    if program is not None:
        recorded = await _record_with_py_spy(program, seconds, frequency_hertz, idle)
    if recorded is not None:
        samples = await asyncio.to_thread(_read_samples, recorded, idle)
    else:
        samples = await _record_in_process(seconds, frequency_hertz, idle)
    body = await asyncio.to_thread(encode_times, samples, subject, frequency_hertz, CPU, profile_format)
    return Profile(body, profile_format, IN_PROCESS if recorded is None else PY_SPY)


def find_py_spy() -> str | None:
    """The program beside this interpreter, else the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), PY_SPY)
    return beside if os.access(beside, os.X_OK) else shutil.which(PY_SPY)


# ----------------------------------------------------------------------------- py-spy


async def _record_with_py_spy(program: str, seconds: int, frequency_hertz: int, idle: bool) -> bytes | None:
    """The folded stacks that py-spy wrote; None when it may not attach or fails, which is logged."""
    directory = await asyncio.to_thread(make_temporary_directory, "profile")
    path = os.path.join(directory, "profile")
    try:
        failure = await _run_py_spy(
            program,
            *("record", "--pid", str(os.getpid()), "--format", "raw", "--output", path),
            *("--duration", str(seconds), "--rate", str(frequency_hertz)),
            "--nonblocking",
            *(("--idle",) if idle else ()),
            timeout_seconds=seconds + PY_SPY_OVERTIME_SECONDS,
        )
        if failure is None:
            return await asyncio.to_thread(_read_file, path)
        logger.warning("py-spy cannot profile this process, sampling in-process instead: %s", failure)
        return None
    except OSError as error:
        logger.warning("py-spy cannot be run, sampling in-process instead: %s", error)
        return None
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _run_py_spy(*command: str, timeout_seconds: float) -> str | None:
    """Run it to its end; returns None, or why it failed. It does not outlive this call."""
    starting = asyncio.ensure_future(asyncio.to_thread(_start, command))
    reading: asyncio.Future[tuple[bytes, bytes]] | None = None
    try:
        process = await asyncio.shield(starting)
        reading = asyncio.ensure_future(asyncio.to_thread(process.communicate, timeout=timeout_seconds))
        _, complaint = await asyncio.shield(reading)
    except subprocess.TimeoutExpired:
        return f"it did not finish within {timeout_seconds:.0f} s"
    finally:
        # Also if this was cancelled during the start. With the child ends the thread that waits for its words.
        child = await starting
        child.kill()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)
        await asyncio.to_thread(child.__exit__, None, None, None)
        allow_tracing_by(0)
    if process.returncode == 0:
        return None
    lines = complaint.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit code {process.returncode}"


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start it with the lowest priority.

    Python starts it with `vfork`, where the loop would copy the page tables of this process first.
    """
    process = subprocess.Popen(  # noqa: S603 - the program that `find_py_spy` found
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    allow_tracing_by(process.pid)
    with contextlib.suppress(OSError):  # it has ended, or the system does not let this user
        os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
    return process


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_samples(recorded: bytes, idle: bool) -> list[StackSample]:
    """py-spy asks the system who runs; a thread that it stopped while waiting for work looks as if it did."""
    samples = merge(parse_folded(recorded.decode(errors="replace")))
    return samples if idle else [sample for sample in samples if not is_waiting(sample.frames)]


# ----------------------------------------------------------------------------- in-process


async def _record_in_process(seconds: int, frequency_hertz: int, idle: bool) -> list[StackSample]:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(sample_threads, seconds, frequency_hertz, stop, idle)
    finally:
        stop.set()
