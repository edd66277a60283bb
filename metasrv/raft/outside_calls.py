"""Calls from outside of a step that may meet a disk which refuses. Runs on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from metasrv.model.errors import FatalError, StoppingError


@contextmanager
def fatal_here(fail: Callable[[FatalError], None]) -> Iterator[None]:
    """A fatal fault stops the node at once, as it would in a step; the caller gets StoppingError, as others do then."""
    try:
        yield
    except FatalError as error:
        fail(error)
        raise StoppingError from error
