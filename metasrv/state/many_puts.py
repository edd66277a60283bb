"""The puts of a transaction that holds nothing else, stored together.

Gives the same records, replies, changes and digest as one put after the other (`operations.py`), as nodes of earlier
releases do it. What is saved is the way of each through the layers and a statement of its own: applying a transaction of
1,000 puts holds the loop of every node. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable

from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.effects import EntryEffects
from metasrv.state.format import INLINE_SIZE_BYTES_MAX

TOGETHER_MIN = 8
"""Fewer operations are not worth a look at their kinds."""


def put_all(effects: EntryEffects, puts: Iterable[c.Put]) -> list[c.PutResponse]:
    """Run the puts in order; a response for each."""
    responses: list[c.PutResponse] = []
    waiting: dict[str, tuple[SeqV, SeqV | None]] = {}
    meta = KVMeta(None, effects.time_ms)
    read = effects.read
    for key, value, expire_at, ttl_ms, match_seq in puts:
        if key in waiting:
            effects.write_many(waiting)
            waiting = {}
        prev = read(key)
        if match_seq is not None and (0 if prev is None else prev.seq) != match_seq:
            responses.append(c.PutResponse(key, prev, prev))
            continue
        is_small = len(value) <= INLINE_SIZE_BYTES_MAX and (prev is None or len(prev.data) <= INLINE_SIZE_BYTES_MAX)
        if is_small and expire_at is None and ttl_ms is None:
            effects.seq += 1
            record = SeqV(effects.seq, value, meta)
            waiting[key] = (record, prev)
            responses.append(c.PutResponse(key, prev, record))
        else:
            effects.write_many(waiting)
            waiting = {}
            responses.append(c.PutResponse(key, prev, effects.write(key, value, prev, expire_at, ttl_ms)))
    effects.write_many(waiting)
    return responses
