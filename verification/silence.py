"""Log lines left out while many nodes run in one process: what matters of them is in the verdict.

Restores what was before, because tests run such programs in their own process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced_logs() -> Iterator[None]:
    """No log line of any level inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
