"""What a node that ends for a fault of its own still answers: for some seconds everybody can ask it why.

A disk that fills at once ends the node within one write: before a scrape, a page or another member has seen that it was
full. So the admin API and the raft port answer a little longer than the node works. Other members have long gone on
without it. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging

from metasrv.console.console import Console
from metasrv.model.errors import MetasrvError
from metasrv.model.events import EventKind, Severity
from metasrv.node.context import NodeContext

logger = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 5.0
"""A console asks the others every two seconds; who scrapes more seldom sees the node down, and its exit code."""


async def say_why(context: NodeContext, console: Console) -> None:
    """Tell why this node ends, and wait until others have heard it.

    Returns at once when the node ends in order, and when it has no status any more because its files are gone.
    """
    try:
        status = context.consensus.status()
        if status.fatal is None:
            return
        text = f"node {status.node_id} ends: {status.fatal}"
        context.events.record(EventKind.STOP, Severity.CRITICAL, text, status.term)  # the engine has logged it
        await console.own.look_at_directory()
        console.tick()
    except (OSError, MetasrvError) as error:
        logger.info("nothing more can be told of this node: %s", error)
        return
    await asyncio.sleep(LAST_WORDS_SECONDS)
