"""Which features of the cluster its members know, asked before one is turned on and when a node joins.

A feature lets commands into the log that nodes of earlier releases cannot read, and a node that meets one stops. What a
node knows is a property of the release that it runs now, so nodes are asked at that moment, and nothing is stored that a
restart with another release would make untrue. Knows nothing of what a feature does. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

from metasrv.model.errors import InvalidRequestError, MembershipError, MetasrvError
from metasrv.model.types import Endpoint, Node

EARLIER_FEATURES = frozenset({"dummy", "dummy_feature2"})
"""What releases know that refuse the question: those before it."""

TIMEOUT_MS = 2_000
"""How long a node may take for its answer."""

Ask = Callable[[int | Endpoint, int], Awaitable[frozenset[str]]]
"""What `Forwarding.features` does: target and timeout in milliseconds; raises MetasrvError."""


async def asked(ask: Ask, target: int | Endpoint, timeout_ms: int) -> frozenset[str] | None:
    """What one node knows; None when it gives no answer."""
    try:
        return await ask(target, timeout_ms)
    except InvalidRequestError:  # the answer of a release that does not know the question
        return EARLIER_FEATURES
    except MetasrvError:
        return None


async def known_by(ask: Ask, node_ids: Iterable[int], timeout_ms: int = TIMEOUT_MS) -> dict[int, frozenset[str] | None]:
    """What each of these nodes knows, all asked at once."""
    targets = list(node_ids)
    return dict(zip(targets, await asyncio.gather(*(asked(ask, i, timeout_ms) for i in targets)), strict=True))


async def refuse_ignorant(ask: Ask, joining: Node, enabled: Collection[str]) -> None:
    """Raise MembershipError for a node that would join and does not know what is on.

    A node that gives no answer is let through: it cannot catch up either, and whoever stands in its place is asked anew.
    """
    if not enabled:
        return
    known = await asked(ask, joining.endpoint, TIMEOUT_MS)
    missing = [] if known is None else sorted(set(enabled) - known)
    if missing:
        what = ", ".join(missing)
        raise MembershipError(
            f"node {joining.node_id} cannot join: its release does not know what is on in this cluster ({what}); start "
            "it with the release of the other nodes"
        )
