"""No log lines while many nodes run in one process: what matters is in the verdict.

Restores the previous settings, because tests run such programs in their own process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced_logs() -> Iterator[None]:
    """Suppress all log lines inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
