"""A small engine guided by coverage, for machines without atheris: it keeps inputs that reach a line for the first time.

Lines of metasrv are counted with `sys.settrace`, which is slow (some hundred inputs a second); atheris is much faster.
"""

from __future__ import annotations

import random
import sys
import time
from types import FrameType
from typing import Any, NamedTuple

from verification.fuzz.mutation import mutated
from verification.fuzz.target import Target

_OWN = "/metasrv/"


class Figures(NamedTuple):
    """What a run did."""

    inputs: int
    lines: int
    """Lines of metasrv that were reached."""
    kept: int
    """Inputs that reached a new one."""


class CrashError(AssertionError):
    """An input that a target does not take; `data` is the input."""

    def __init__(self, target: Target, data: bytes) -> None:
        super().__init__(f"{target.name}: {data!r}")
        self.data = data


def run_guided(target: Target, seconds: float, seed: int) -> Figures:
    """Run until `seconds` are over. Raises CrashError from what the target raised."""
    source = random.Random(seed)
    corpus, lines = list(target.seeds), set[tuple[str, int]]()
    ends_at, inputs = time.monotonic() + seconds, 0
    waiting = list(target.seeds)
    while time.monotonic() < ends_at:
        data = waiting.pop() if waiting else mutated(source, corpus, target.input_size_bytes_max)
        before = len(lines)
        run_once(target, data, lines)
        inputs += 1
        if len(lines) > before:
            corpus.append(data)
    return Figures(inputs, len(lines), len(corpus) - len(target.seeds))


def run_once(target: Target, data: bytes, lines: set[tuple[str, int]] | None = None) -> None:
    """Run one input, and add the lines that it reached. Raises CrashError."""

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if _OWN not in frame.f_code.co_filename:
            return None
        if lines is not None and event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    if lines is not None:
        sys.settrace(trace)
    try:
        target.run(data)
    except Exception as error:
        raise CrashError(target, data) from error
    finally:
        if lines is not None:
            sys.settrace(before)
