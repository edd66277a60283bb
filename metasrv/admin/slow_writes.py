"""`GET /v1/slow-writes`: the slowest and the largest writes that clients of this node made in the last minutes.

Keys are what clients store, so they are shown only where the key browser is on. Values are never here. Runs on the event
loop.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from metasrv.admin.problem import SLOW_WRITES_PATH
from metasrv.admin.responses import NO_STORE, PROBLEM_MEDIA_TYPE, JsonResponse, codes
from metasrv.admin.schemas import SlowWritesSchema
from metasrv.model.limits import SLOW_WRITES_MINUTES_MAX
from metasrv.node.context import NodeContext
from metasrv.node.slow_writes import SlowWrite

KEYS_ARE_OFF = "keys are not shown: `admin_key_browser = true` in the configuration of this node turns that on"


def slow_writes_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["console"])
    shown = codes(PROBLEM_MEDIA_TYPE, ok="of the last minutes, on this node", s500="the node has stopped")

    @router.get(SLOW_WRITES_PATH, operation_id="slowWrites", response_model=SlowWritesSchema, responses=shown)
    async def slow_writes() -> Response:
        """The slowest and the largest writes of this node's clients, forwarded ones included."""
        return JsonResponse(slow_writes_view(context), headers=NO_STORE)

    return router


def slow_writes_view(context: NodeContext) -> dict[str, Any]:
    """The shape of `GET /v1/slow-writes`."""
    with_keys = context.config.admin_key_browser
    return {
        "node_id": context.config.raft_config.id,
        "minutes": SLOW_WRITES_MINUTES_MAX,
        "keys": None if with_keys else KEYS_ARE_OFF,
        "slowest": [_view(write, with_keys) for write in context.slow_writes.slowest()],
        "largest": [_view(write, with_keys) for write in context.slow_writes.largest()],
    }


def _view(write: SlowWrite, with_keys: bool) -> dict[str, Any]:
    return {
        "ended_at_ms": write.ended_at_ms,
        "milliseconds": round(write.seconds * 1000, 3),
        "size_bytes": write.size_bytes,
        "method": write.method,
        "operations": write.written.operations,
        "keys": list(write.written.keys) if with_keys else None,
        "failure": write.failure,
    }
