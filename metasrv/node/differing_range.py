"""Finds the first range of keys in which two nodes' copies differ, while both go on.

Both add up ranges of their records, each at its own position of the log; ranges that agree are left out, and the first
one that does not is cut into smaller ones. When the positions are equal the answer is exact. While writes go on they
seldom are, so that several looks are compared: a range that differs in all of them differs, or is written to all the
time. Runs on the node's event loop; the records are read in helper threads.
"""

from __future__ import annotations

import asyncio

from metasrv.raft.consensus import RaftConsensus
from metasrv.state.scrubbing import sample_keys

RANGES = 64
"""Looked at in one step."""
STEPS = 3
LOOKS = 5
_LOOK_AGAIN_SECONDS = 0.2
_TIMEOUT_MS = 10_000


async def first_differing_range(consensus: RaftConsensus, node_id: int) -> str:
    """The range in words; raises NotDoneError or UnknownOutcomeError when the other node does not answer."""
    path = consensus.replica.machine.path
    start, end = "", None
    exact = found = False
    for _ in range(STEPS):
        bounds = (start, *await asyncio.to_thread(sample_keys, path, start, end, RANGES - 1))
        at, exact = await _first_differing(consensus, node_id, bounds if end is None else (*bounds, end), end is not None)
        if at is None:
            break
        found = True
        start, end = bounds[at], bounds[at + 1] if at + 1 < len(bounds) else end
        if len(bounds) == 1:
            break
    if not found:
        return "no range of records (another part of the state, or they are equal by now)"
    text = f"the keys from {start!r} to before {end!r}" if end is not None else f"the keys from {start!r} on"
    return text if exact else f"{text} (looked at while writes went on)"


async def _first_differing(
    consensus: RaftConsensus, node_id: int, bounds: tuple[str, ...], ends: bool
) -> tuple[int | None, bool]:
    """Which range differs first, and whether that is certain; what follows the last bound counts unless `ends`."""
    differing = set(range(len(bounds) - ends))
    for look in range(LOOKS):
        if look:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        own, other = await asyncio.gather(
            consensus.range_digests(bounds), consensus.forwarding.range_digests(node_id, bounds, _TIMEOUT_MS)
        )
        differ = {at for at in differing if own.digests[at] != other.digests[at]}
        if own.index == other.index:
            return min(differ, default=None), True
        differing = differ
    return min(differing, default=None), False
