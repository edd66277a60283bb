"""Which keys a write is about, for the few writes that are kept as slow or large.

Looks at the first operations alone and never at a value, so that it costs as little for a large request. A write whose
keys cannot be told has none. Pure; runs on the event loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from metasrv.model.limits import SLOW_WRITE_KEYS_MAX
from metasrv.node.slow_writes import Written
from metasrv.protocol.proto import meta_pb2 as pb

NOTHING = Written((), 0)
_HEAD_SIZE_BYTES = 4096
"""What is looked at of a request in JSON: its key stands before its value, as clients write it."""
_KEY = re.compile(rb'^\s*\{\s*"UpsertKV"\s*:\s*\{\s*"key"\s*:\s*("(?:[^"\\]|\\.)*")')


def written_by(request: Any) -> Written:
    """The keys of a parsed request of Transaction, KvTransaction or KvApi."""
    if isinstance(request, pb.TxnRequest):
        branches = chain.from_iterable(branch.operations for branch in request.operations)
        return _written(
            chain(request.if_then, request.else_then, branches),
            len(request.if_then) + len(request.else_then) + sum(len(branch.operations) for branch in request.operations),
        )
    if isinstance(request, pb.KvTransactionRequest):
        operations = chain.from_iterable(branch.operations for branch in request.branches)
        return _written(operations, sum(len(branch.operations) for branch in request.branches))
    if isinstance(request, pb.RaftRequest):
        found = _KEY.match(request.data[:_HEAD_SIZE_BYTES].encode())
        return Written((), 1) if found is None else Written((_text(found[1]),), 1)
    return NOTHING


def _written(operations: Iterable[pb.TxnOp], count: int) -> Written:
    return Written(tuple(islice(_keys(operations), SLOW_WRITE_KEYS_MAX)), count)


def _keys(operations: Iterable[pb.TxnOp]) -> Iterator[str]:
    for operation in operations:
        name = operation.WhichOneof("request")
        if name is not None:
            asked = getattr(operation, name)
            yield asked.prefix if name in ("delete_by_prefix", "put_sequential") else asked.key


def _text(quoted: bytes) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return ""
