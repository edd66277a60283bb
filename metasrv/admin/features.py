"""Features of the cluster: which there are, and turning them on and off.

    GET /v1/features/list                        known features and those that are on
    GET, POST /v1/features/set                   turn one on or off; leader only

One is turned on only when every member knows it, because a feature brings commands that other releases cannot read. Runs
on the event loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from fastapi import APIRouter, Request

from metasrv.admin.actions import action
from metasrv.admin.control import SET_FEATURE_PATH, optional_text
from metasrv.admin.problem import fault
from metasrv.admin.query import boolean, parse_query
from metasrv.admin.responses import JsonResponse, TextResponse, codes, parameters
from metasrv.admin.schemas import FeaturesSchema
from metasrv.admin.views import features_view
from metasrv.model.commands import KNOWN_FEATURES, FeatureReply, SetFeature
from metasrv.model.errors import NotLeaderError
from metasrv.model.types import RaftStatus
from metasrv.node.context import NodeContext

PROPOSAL_TIMEOUT_MS = 10_000
MISSING_FEATURE_QUERY = "'feature' and 'enable' query parameters are required"


def features_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["control"])
    act = partial(action, router)

    @router.get("/v1/features/list", operation_id="listFeatures", response_model=FeaturesSchema)
    async def list_features() -> JsonResponse:
        """Known features and those that are on, from local applied state."""
        return JsonResponse(features_view(context.machine.features))

    @act(
        SET_FEATURE_PATH,
        operation_id="setFeature",
        response_model=FeaturesSchema,
        openapi_extra=parameters(
            feature=("Name of a known feature.", list(KNOWN_FEATURES), True),
            enable=("`true` or `false`.", "boolean", True),
            force=("`true` turns it on although a member may not know it.", "boolean", False),
        ),
        responses=codes(
            ok="the features that are on now",
            s400="a parameter is missing or unknown",
            s404="this node is not the leader",
            s409="a member does not know the feature, or gives no answer",
            s500="the change was not committed",
        ),
    )
    async def set_feature(request: Request) -> JsonResponse | TextResponse:
        """Turn a feature on or off in the whole cluster; on only when every member, learners included, knows it."""
        fields = {"feature": _known_feature, "enable": boolean, "force": boolean}
        query: dict[str, str | bool] = parse_query(request.scope["query_string"], fields)
        feature, enable = query.get("feature"), query.get("enable")
        if not isinstance(feature, str) or not isinstance(enable, bool):
            return fault(400, MISSING_FEATURE_QUERY)
        status = context.consensus.status()
        if not status.is_leader:
            return fault(404, not_leader_to_set_feature(status))
        if enable and query.get("force") is not True:
            missing = feature_missing(feature, await context.consensus.known_features())
            if missing is not None:
                return fault(409, missing)
        try:
            reply = await context.consensus.propose_local(SetFeature(feature, enable), PROPOSAL_TIMEOUT_MS)
        except NotLeaderError:
            return fault(404, not_leader_to_set_feature(context.consensus.status()))
        if not isinstance(reply, FeatureReply):
            return fault(500, f"the feature was not set: {reply}")
        return JsonResponse(features_view(reply.enabled))

    return router


def not_leader_to_set_feature(status: RaftStatus) -> str:
    """One line (docs/contract/admin-api.md section 1.6)."""
    leader = optional_text(status.leader_id)
    return f"This node is not leader, can not set feature; id={status.node_id} current_leader={leader}"


def feature_missing(feature: str, known: Mapping[int, Collection[str] | None]) -> str | None:
    """Why the feature cannot be turned on while the members know no more than this; None when all of them know it."""
    ignorant = sorted(node_id for node_id, names in known.items() if names is not None and feature not in names)
    silent = sorted(node_id for node_id, names in known.items() if names is None)
    reasons = []
    if ignorant:
        reasons.append(f"the release of {_nodes(ignorant)} does not know it")
    if silent:
        reasons.append(f"{_nodes(silent)} could not be asked")
    if not reasons:
        return None
    return (
        f"the feature {feature} stays off: {' and '.join(reasons)}; a member that does not know it "
        "stops at what it brings. Upgrade, start or remove these nodes first; force=true (metactl: --force) "
        "turns it on all the same"
    )


def _nodes(node_ids: list[int]) -> str:
    return f"node{'s' if len(node_ids) > 1 else ''} {', '.join(map(str, node_ids))}"


def _known_feature(text: str) -> str | None:
    return text if text in KNOWN_FEATURES else None
