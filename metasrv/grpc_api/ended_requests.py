"""What the log of slow requests and the spans say of a call that has ended. Costs nothing for any other call.

Runs on the event loop, for a few calls a second at most.
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.message import DecodeError

from metasrv.grpc_api.calls import Call, client_address
from metasrv.grpc_api.written_keys import written_by
from metasrv.model.failure_reasons import FailureReason
from metasrv.model.users import User
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.tracing.slow_requests import shown_key
from metasrv.tracing.times import RequestEnd

WATCHED_STREAMS = frozenset((m.KV_READ_V1, m.KV_LIST, m.HANDSHAKE))
"""Streams that last as long as the node takes. The others last as long as their client wants."""
PARSED_SIZE_BYTES_MAX = 1024 * 1024
"""The key of a larger request is not looked for: a slow request must not make the next one slow."""
JSON_CHARACTERS_SEARCHED = 16 * 1024
_JSON_KEY = re.compile(r'"(?:key|prefix|keys)"\s*:\s*\[?\s*"((?:[^"\\]|\\.)*)"')


def ended_request(
    method: m.Method, request: Any, call: Call, user: User | None, failed: FailureReason | None
) -> RequestEnd:
    """`request` are the bytes of its message, or what a stream reads."""
    return RequestEnd(
        method=method.name,
        outcome="ok" if failed is None else failed.value,
        client=lambda: client_address(call.peer()),
        key=lambda: _key_of(method, request) if isinstance(request, bytes) else "",
        user="" if user is None else user.name,
    )


def _key_of(method: m.Method, data: bytes) -> str:
    if len(data) > PARSED_SIZE_BYTES_MAX:
        return ""
    try:
        request = method.request.FromString(data)
        if isinstance(request, pb.KvListRequest):
            return shown_key(request.prefix)
        if isinstance(request, pb.RaftRequest):
            found = _JSON_KEY.search(request.data[:JSON_CHARACTERS_SEARCHED])
            return "" if found is None else shown_key(json.loads(f'"{found[1]}"'))
    except (DecodeError, ValueError):
        return ""
    keys = written_by(request).keys
    return shown_key(keys[0]) if keys else ""
