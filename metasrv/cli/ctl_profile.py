"""`metactl profile`: what a node spends processor time or memory on, now or in the last ten minutes.

Without `-o` the functions that cost most are printed; with it a file is written whose name says its form: `.svg` is a
flame graph with zoom and search, `.folded` stacks as text, `.json` for speedscope, `.bin` memray's own, everything else
pprof.
Times are UTC, as in logs and events. Runs in the foreground of a short process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from metasrv.cli.ctl_admin import TIMEOUT_SECONDS, client_of
from metasrv.cli.output import time_text
from metasrv.cli.terminal import note, show
from metasrv.model.errors import InvalidRequestError, NotDoneError

CPU_PATH, MEMORY_PATH = "/debug/pprof/profile", "/debug/mem/pprof/profile"
MINUTES_PATH, HISTORY_PATH, CAPTURES_PATH = "/v1/profile/minutes", "/v1/profile/history", "/v1/profile/captures"
SECONDS_DEFAULT = 5
REPORT_SECONDS_MAX = 120
"""Beyond the seconds of the profile itself: reading a memory capture takes a while."""
FORMATS = {".svg": "svg", ".folded": "folded", ".txt": "folded", ".json": "speedscope", ".bin": "memray"}
FUNCTIONS_SHOWN = 25
MINUTE_MS = 60_000
CAPTURE_HEADER = "X-Profile-Capture"


def cpu(arguments: argparse.Namespace) -> None:
    _profile(arguments, CPU_PATH, "samples", seconds=arguments.seconds, idle=_true(arguments.idle))


def memory(arguments: argparse.Namespace) -> None:
    """The name under which it can be compared with later goes to stderr."""
    small = _true(arguments.small_objects)
    _profile(arguments, MEMORY_PATH, "bytes", seconds=arguments.seconds, base=arguments.base, small_objects=small)


def captures(arguments: argparse.Namespace) -> None:
    for one in client_of(arguments).json(CAPTURES_PATH, ("captures",))["captures"]:
        show(f"{one['capture']}  {one['seconds']} s")


def history(arguments: argparse.Namespace) -> None:
    """The minutes that are kept; with `--at` what was done in that one, and in those that follow with `--minutes`."""
    if arguments.at is not None:
        start_ms = minute_at(arguments.at, time.time())
        end_ms = start_ms + arguments.minutes * MINUTE_MS
        idle = _true(arguments.idle)
        _profile(arguments, HISTORY_PATH, "looks", seconds=None, from_ms=start_ms, to_ms=end_ms, idle=idle)
        return
    answer = client_of(arguments).json(MINUTES_PATH, ("frequency_hertz", "minutes"))
    if not answer["frequency_hertz"]:
        raise NotDoneError("the node keeps no continuous profile: `continuous_profile_hertz` is 0 in its configuration")
    show("minute (UTC)          looks  at work")
    for minute in answer["minutes"]:
        share = 100 * minute["busy_looks"] / max(1, minute["looks"])
        show(f"{time_text(minute['start_ms'])[:16]}Z {minute['looks']:9} {share:7.1f} %")


def minute_at(text: str, now_seconds: float) -> int:
    """The newest `HH:MM` that is not in the future, as wall clock in milliseconds. Raises InvalidRequestError."""
    try:
        given = datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise InvalidRequestError(f"{text!r} is not a time of the day in UTC, such as 03:12") from error
    now = datetime.fromtimestamp(now_seconds, UTC)
    moment = datetime.combine(now.date(), given, UTC)
    if moment > now:
        moment -= timedelta(days=1)
    return int(moment.timestamp()) * 1000


def _profile(arguments: argparse.Namespace, path: str, unit: str, *, seconds: int | None, **query: object) -> None:
    output: str | None = arguments.output
    form = "folded" if output is None else FORMATS.get(os.path.splitext(output)[1], "pprof")
    timeout_seconds = TIMEOUT_SECONDS if seconds is None else seconds + REPORT_SECONDS_MAX
    body, headers = client_of(arguments).profile(path, timeout_seconds, format=form, seconds=seconds, **query)
    if output is None:
        is_difference = query.get("base") is not None
        for line in top_lines(body.decode(), unit, is_difference):
            show(line)
    else:
        try:
            Path(output).write_bytes(body)
        except OSError as error:
            raise NotDoneError(f"{output} cannot be written: {error.strerror or error}") from error
        note(f"{output} is written, {len(body)} bytes")
    if headers.get(CAPTURE_HEADER):
        note(f"to compare with this one later: --base {headers[CAPTURE_HEADER]}")


def top_lines(folded: str, unit: str, is_difference: bool) -> list[str]:
    """The functions with the largest values, or the largest change: their own part, and that with what they call."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    total = 0
    for line in folded.splitlines():
        words = line.rsplit(" ", 2 if is_difference else 1)
        value = int(words[-1]) - (int(words[-2]) if is_difference else 0)
        # A function counts once in a stack, whatever its lines.
        functions = [_without_line(frame) for frame in words[0].split(";")]
        own[functions[-1]] += value
        for function in set(functions):
            with_callees[function] += value
        total += value
    ordered = sorted(own, key=lambda function: abs(own[function]), reverse=True)[:FUNCTIONS_SHOWN]
    sign = "+" if is_difference else ""
    lines = [f"{total:{sign},} {unit}{' more than in the earlier profile' if is_difference else ''}"]
    if ordered:
        lines.append(f"{'own':>14} {'with callees':>14}  function")
    return lines + [f"{own[name]:{sign}14,} {with_callees[name]:{sign}14,}  {name}" for name in ordered]


def _without_line(frame: str) -> str:
    start, colon, line = frame.rpartition(":")
    return f"{start})" if colon and line.endswith(")") and line[:-1].isdigit() else frame


def _true(flag: bool) -> str | None:
    return "true" if flag else None
