"""Routes that change something: snapshot, leadership, features.

    GET, POST /v1/ctrl/trigger_snapshot          start a snapshot on this node
    GET, POST /v1/ctrl/trigger_transfer_leader   hand leadership over; leader only
    GET /v1/features/list                        known features and those that are on
    GET, POST /v1/features/set                   turn one on or off; leader only

They take GET, because that is what clients of this API send; `guard.py` refuses web pages. Runs on the event loop.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request

from metasrv.admin.actions import POST_PATHS, USERS_LIST_PATH, action
from metasrv.admin.problem import fault
from metasrv.admin.query import boolean, parse_query, unsigned
from metasrv.admin.responses import JsonResponse, TextResponse, codes, parameters
from metasrv.admin.schemas import FeaturesSchema, TransferSchema
from metasrv.admin.views import features_view
from metasrv.model.commands import KNOWN_FEATURES, FeatureReply, SetFeature
from metasrv.model.errors import NotLeaderError
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext

SNAPSHOT_PATH = "/v1/ctrl/trigger_snapshot"
TRANSFER_PATH = "/v1/ctrl/trigger_transfer_leader"
SET_FEATURE_PATH = "/v1/features/set"
CONTROL_PATHS = frozenset({SNAPSHOT_PATH, TRANSFER_PATH, SET_FEATURE_PATH, USERS_LIST_PATH, *POST_PATHS})
"""Everything that changes state, and what only operators may read; `guard.py` protects and records it."""

TRANSFER_CODES = codes(
    ok="begun, unless `to` names no other voter", s404="this node is not the leader", s500="the node has stopped"
)
PROPOSAL_TIMEOUT_MS = 10_000
MISSING_FEATURE_QUERY = "'feature' and 'enable' query parameters are required"


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

    @router.get("/v1/features/list", operation_id="listFeatures", response_model=FeaturesSchema)
    async def list_features() -> JsonResponse:
        """Known features and those that are on, from local applied state."""
        return JsonResponse(features_view(context.machine.features))

    @act(
        SET_FEATURE_PATH,
        operation_id="setFeature",
        response_model=FeaturesSchema,
        openapi_extra=parameters(
            feature=("Name of a known feature.", "string", True), enable=("`true` or `false`.", "boolean", True)
        ),
        responses=codes(
            ok="the features that are on now",
            s400="a parameter is missing or unknown",
            s404="this node is not the leader",
            s500="the change was not committed",
        ),
    )
    async def set_feature(request: Request) -> JsonResponse | TextResponse:
        """Turn a feature on or off in the whole cluster."""
        fields = {"feature": _known_feature, "enable": boolean}
        query: dict[str, str | bool] = parse_query(request.scope["query_string"], fields)
        feature, enable = query.get("feature"), query.get("enable")
        if not isinstance(feature, str) or not isinstance(enable, bool):
            return fault(400, MISSING_FEATURE_QUERY)
        status = context.consensus.status()
        if not status.is_leader:
            return fault(404, not_leader_to_set_feature(status))
        try:
            reply = await context.consensus.propose_local(SetFeature(feature, enable), PROPOSAL_TIMEOUT_MS)
        except NotLeaderError:
            return fault(404, not_leader_to_set_feature(context.consensus.status()))
        if not isinstance(reply, FeatureReply):
            return fault(500, f"the feature was not set: {reply}")
        return JsonResponse(features_view(reply.enabled))

    return router


def not_leader_to_transfer(status: RaftStatus) -> str:
    """Four lines (docs/contract/admin-api.md section 1.5)."""
    return (
        "This node is not leader, can not transfer leadership\n"
        f"id={status.node_id}\n"
        f"current_leader={optional_text(status.leader_id)}\n"
        f"voter_ids={sorted(status.membership.voters)}"
    )


def not_leader_to_set_feature(status: RaftStatus) -> str:
    """One line (docs/contract/admin-api.md section 1.6)."""
    leader = optional_text(status.leader_id)
    return f"This node is not leader, can not set feature; id={status.node_id} current_leader={leader}"


def optional_text(node_id: int | None) -> str:
    return "None" if node_id is None else f"Some({node_id})"


def _known_feature(text: str) -> str | None:
    return text if text in KNOWN_FEATURES else None
