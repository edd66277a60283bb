"""What a fuzz target is, and what each may use: a loop, and a log that fails when the product logs an error.

Knows no target and no engine. Runs in the process of an engine, or in a test.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Target(NamedTuple):
    """Something that takes bytes of anybody."""

    name: str
    run: Callable[[bytes], object]
    """Returns for every input; whatever it raises is a finding."""
    seeds: tuple[bytes, ...]
    """Inputs to begin with."""
    input_size_bytes_max: int = 4096


class LoggedError(AssertionError):
    """The product logged an error, which it does only for what it did not expect."""


class _Strict(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def no_logged_errors() -> Iterator[None]:
    """Raise LoggedError at the end if anything was logged as an error meanwhile; other lines go nowhere."""
    strict = _Strict()
    root = logging.getLogger()
    before, root.handlers = root.handlers, [strict]
    try:
        yield
    finally:
        root.handlers = before
    if strict.lines:
        raise LoggedError("\n".join(strict.lines))


_loop: asyncio.AbstractEventLoop | None = None
_faults: list[dict[str, object]] = []


def fuzz_loop() -> asyncio.AbstractEventLoop:
    """The one loop of this process; what its callbacks raise is kept for `run_callbacks`."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        _loop.set_exception_handler(lambda _loop, context: _faults.append(context))
    return _loop


def run_callbacks(rounds: int = 8) -> None:
    """Let the loop run what is due. Raises what a callback or a forgotten task raised."""
    loop = fuzz_loop()
    for _ in range(rounds):
        loop.run_until_complete(asyncio.sleep(0))
    if _faults:
        found = list(_faults)
        _faults.clear()
        error = found[0].get("exception")
        raise error if isinstance(error, BaseException) else LoggedError(str(found[0]))
