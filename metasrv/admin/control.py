"""Routes that change something on this node or move the leadership: snapshot, transfer.

    GET, POST /v1/ctrl/trigger_snapshot          start a snapshot on this node
    GET, POST /v1/ctrl/trigger_backup            have the scheduled backup made now; leader only (`backups.py`)
    GET, POST /v1/ctrl/trigger_transfer_leader   hand leadership over; leader only

They take GET, because that is what clients of this API send; `guard.py` refuses web pages. Runs on the event loop.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request

from metasrv.admin.actions import BACKUP_PATH, POST_PATHS, USERS_LIST_PATH, action
from metasrv.admin.problem import fault
from metasrv.admin.query import parse_query, unsigned
from metasrv.admin.responses import JsonResponse, TextResponse, codes, parameters
from metasrv.admin.schemas import TransferSchema
from metasrv.model.errors import NotLeaderError
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext

SNAPSHOT_PATH = "/v1/ctrl/trigger_snapshot"
TRANSFER_PATH = "/v1/ctrl/trigger_transfer_leader"
SET_FEATURE_PATH = "/v1/features/set"
CONTROL_PATHS = frozenset({SNAPSHOT_PATH, BACKUP_PATH, TRANSFER_PATH, SET_FEATURE_PATH, USERS_LIST_PATH, *POST_PATHS})
"""Everything that changes state, and what only operators may read; `guard.py` protects and records it."""

TRANSFER_CODES = codes(
    ok="begun, unless `to` names no other voter", s404="this node is not the leader", s500="the node has stopped"
)


def control_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["control"])
    act = partial(action, router)

    @act(
        SNAPSHOT_PATH,
        operation_id="triggerSnapshot",
        response_model=None,
        responses=codes(ok="`null`: begun, being written, or to be begun", s500="the node is stopping"),
    )
    async def trigger_snapshot() -> JsonResponse:
        """Start a snapshot of this node and answer at once, even while one is being written or nothing is applied yet."""
        await context.consensus.trigger_snapshot()
        return JsonResponse(None)

    @act(
        TRANSFER_PATH,
        operation_id="transferLeader",
        response_model=TransferSchema,
        openapi_extra=parameters(to=("Target node; by default the next voter, wrapping.", "integer", False)),
        responses=TRANSFER_CODES,
    )
    async def trigger_transfer_leader(request: Request) -> JsonResponse | TextResponse:
        """Ask a voter to take over."""
        query = parse_query(request.scope["query_string"], {"to": unsigned})
        try:
            result = await context.consensus.transfer_leadership(query.get("to"))
        except NotLeaderError:
            return fault(404, not_leader_to_transfer(context.consensus.status()))
        return JsonResponse({"from": result.from_id, "to": result.to_id, "voter_ids": sorted(result.voter_ids)})

    return router


def not_leader_to_transfer(status: RaftStatus) -> str:
    """Four lines (docs/contract/admin-api.md section 1.5)."""
    return (
        "This node is not leader, can not transfer leadership\n"
        f"id={status.node_id}\n"
        f"current_leader={optional_text(status.leader_id)}\n"
        f"voter_ids={sorted(status.membership.voters)}"
    )


def optional_text(node_id: int | None) -> str:
    return "None" if node_id is None else f"Some({node_id})"
