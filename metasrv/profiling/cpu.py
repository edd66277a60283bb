"""CPU profiles of this process: by py-spy where it may attach, else by an in-process sampler.

py-spy runs as a child and reads this process's memory from outside, so the event loop only waits for it. Attaching to
one's parent needs a permission that containers often lack (a Yama restriction is lifted here for that child alone).
Without it the in-process sampler takes the profile, and the result says so. Must not know HTTP. Runs on the event loop;
reading and writing files and encoding happen in a helper thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import threading
import time

from metasrv.process.operating_system import allow_tracing_by
from metasrv.process.temporary_directories import make_temporary_directory
from metasrv.profiling.flamegraph import encode_flamegraph
from metasrv.profiling.pprof import ProfileHeader, ValueType, encode_profile
from metasrv.profiling.profile import Profile, ProfileFormat
from metasrv.profiling.sampler import sample_threads
from metasrv.profiling.speedscope import encode_speedscope
from metasrv.profiling.stacks import StackSample, parse_folded, to_folded

logger = logging.getLogger(__name__)

PY_SPY = "py-spy"
IN_PROCESS = "in-process"
PY_SPY_OVERTIME_SECONDS = 15.0
"""How long py-spy may take to write its file once the requested time is over."""

_PY_SPY_FORMATS = {ProfileFormat.SVG: "flamegraph", ProfileFormat.SPEEDSCOPE: "speedscope"}


async def record_cpu(seconds: int, frequency_hertz: int, profile_format: ProfileFormat) -> Profile:
    """Profile this process for `seconds`; the form is one of `CPU_FORMATS`. Cancellation ends the profiler."""
    started_ns = time.time_ns()
    program = find_py_spy()
    recorded = None
    if program is not None:
        recorded = await _record_with_py_spy(program, seconds, frequency_hertz, profile_format)
    if recorded is not None and profile_format in _PY_SPY_FORMATS:
        return Profile(recorded, profile_format, PY_SPY)
    if recorded is not None:
        samples = await asyncio.to_thread(parse_folded, recorded.decode(errors="replace"))
    else:
        samples = await _record_in_process(seconds, frequency_hertz)
    body = await asyncio.to_thread(_encode, samples, seconds, frequency_hertz, profile_format, started_ns)
    return Profile(body, profile_format, IN_PROCESS if recorded is None else PY_SPY)


def find_py_spy() -> str | None:
    """The program beside this interpreter, else the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), PY_SPY)
    return beside if os.access(beside, os.X_OK) else shutil.which(PY_SPY)


# ----------------------------------------------------------------------------- py-spy


async def _record_with_py_spy(
    program: str, seconds: int, frequency_hertz: int, profile_format: ProfileFormat
) -> bytes | None:
    """The file that py-spy wrote; None when it may not attach or fails, which is logged."""
    directory = await asyncio.to_thread(make_temporary_directory, "profile")
    path = os.path.join(directory, "profile")
    try:
        failure = await _run_py_spy(
            program,
            *("record", "--pid", str(os.getpid()), "--format", _PY_SPY_FORMATS.get(profile_format, "raw")),
            *("--duration", str(seconds), "--rate", str(frequency_hertz), "--output", path),
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


async def _run_py_spy(program: str, *arguments: str, timeout_seconds: float) -> str | None:
    """Run it to its end; returns None, or why it failed. It does not outlive this call."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    allow_tracing_by(process.pid)
    try:
        _, complaint = await asyncio.wait_for(process.communicate(), timeout_seconds)
    except TimeoutError:
        return f"it did not finish within {timeout_seconds:.0f} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        allow_tracing_by(0)
    if process.returncode == 0:
        return None
    lines = complaint.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit code {process.returncode}"


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# ----------------------------------------------------------------------------- in-process


async def _record_in_process(seconds: int, frequency_hertz: int) -> list[StackSample]:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(sample_threads, seconds, frequency_hertz, stop)
    finally:
        stop.set()


# ----------------------------------------------------------------------------- forms


def _encode(
    samples: list[StackSample], seconds: int, frequency_hertz: int, profile_format: ProfileFormat, started_ns: int
) -> bytes:
    """Encode the samples in the requested form; the one value of each is its count."""
    if profile_format is ProfileFormat.FOLDED:
        return to_folded(samples).encode()
    if profile_format is ProfileFormat.SVG:
        return encode_flamegraph(f"CPU, {seconds} s at {frequency_hertz} Hz", samples, "{} samples".format)
    if profile_format is ProfileFormat.SPEEDSCOPE:
        return encode_speedscope(f"CPU, {seconds} s at {frequency_hertz} Hz", samples, "none")
    period_ns = 1_000_000_000 // frequency_hertz
    nanoseconds = ValueType("cpu", "nanoseconds")
    header = ProfileHeader(
        value_types=(ValueType("samples", "count"), nanoseconds),
        period_type=nanoseconds,
        period=period_ns,
        time_ns=started_ns,
        duration_ns=seconds * 1_000_000_000,
        default_type="cpu",
    )
    timed = (StackSample(frames, (count, count * period_ns)) for frames, (count,) in samples)
    return encode_profile(header, timed)
