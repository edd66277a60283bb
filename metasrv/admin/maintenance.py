"""Routes of maintenance: the read-only switch of the cluster, the drain of this node, compaction of its files.

    POST /v1/ctrl/read_only    refuse writes of clients in the whole cluster, or take them again; on any node
    POST /v1/ctrl/drain        let this node lead no more and fail its readiness, or end that
    POST /v1/ctrl/compact      shorten this node's log and files in the background

They take POST alone: nothing of upstream's sends them. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request

from metasrv.admin.actions import COMPACT_PATH, DRAIN_PATH, READ_ONLY_PATH
from metasrv.admin.problem import problem
from metasrv.admin.query import boolean, parse_query, unsigned
from metasrv.admin.responses import PROBLEM_MEDIA_TYPE, JsonResponse, codes, parameters
from metasrv.admin.schemas import CompactionSchema, DrainSchema, LimitsSchema
from metasrv.admin.views import compaction_view, limits_view
from metasrv.model.commands import LIMITS_FEATURE, LimitsReply, SetReadOnly
from metasrv.model.errors import InvalidRequestError, NotDoneError, RequestError, StoppingError
from metasrv.node.context import NodeContext
from metasrv.state.command_rules import validate_command

PROPOSAL_TIMEOUT_MS = 8_000
"""Less than metactl waits for an answer."""
DRAIN_TIMEOUT_MS = 5_000
FEATURE_OFF = (
    f"the feature {LIMITS_FEATURE} is off; once every node of the cluster runs a release that knows it, turn it on: "
    f"metactl set-feature --feature {LIMITS_FEATURE} --enable true"
)
ON_MISSING = "the query parameter `on` must be `true` or `false`"


def maintenance_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["maintenance"])
    _add_read_only(router, context)
    _add_drain(router, context)

    @router.post(
        COMPACT_PATH,
        operation_id="compact",
        response_model=CompactionSchema,
        responses=codes(
            PROBLEM_MEDIA_TYPE,
            ok="begun, or under way already; the status says how far it is",
            s500="the node is stopping",
        ),
    )
    async def compact() -> JsonResponse:
        """Write a snapshot, purge the log up to it, and give free space of both files back, in slices."""
        context.consensus.compact()
        return JsonResponse(compaction_view(context.consensus.status().compaction))

    return router


def _add_read_only(router: APIRouter, context: NodeContext) -> None:
    @router.post(
        READ_ONLY_PATH,
        operation_id="setReadOnly",
        response_model=LimitsSchema,
        openapi_extra=parameters(
            on=("`true` to refuse writes, `false` to take them.", "boolean", True),
            reason=("Stands in every refusal.", "string", False),
        ),
        responses=codes(
            PROBLEM_MEDIA_TYPE,
            ok="what the cluster refuses now",
            s400="a parameter is missing, or the reason is too long",
            s409=f"the feature {LIMITS_FEATURE} is off",
            s500="the change was not committed",
        ),
    )
    async def set_read_only(request: Request) -> JsonResponse:
        """Let the whole cluster refuse writes of clients, or take them again. Any node forwards this to the leader."""
        fields: dict[str, Callable[[str], bool | str | None]] = {"on": boolean, "reason": str}
        query = parse_query(request.scope["query_string"], fields)
        on, reason = query.get("on"), query.get("reason", "")
        if not isinstance(on, bool):
            return problem(400, ON_MISSING)
        if LIMITS_FEATURE not in context.machine.features:
            return problem(409, FEATURE_OFF)
        try:
            command = SetReadOnly(str(reason) if on else None)
            validate_command(command)
            reply = await context.consensus.propose(command, PROPOSAL_TIMEOUT_MS)
        except InvalidRequestError as error:
            return problem(400, str(error))
        except RequestError as error:
            return problem(500, str(error))
        if not isinstance(reply, LimitsReply):
            return problem(500, f"the switch was not set: {reply}")
        return JsonResponse(limits_view(reply.read_only, reply.quota_bytes))


def _add_drain(router: APIRouter, context: NodeContext) -> None:
    @router.post(
        DRAIN_PATH,
        operation_id="drain",
        response_model=DrainSchema,
        openapi_extra=parameters(
            on=("`true` to drain, `false` to end that.", "boolean", True),
            id=("The node that is meant; another one refuses.", "integer", False),
        ),
        responses=codes(
            PROBLEM_MEDIA_TYPE,
            ok="whether this node is drained now",
            s400="a parameter is missing or wrong",
            s409="this is another node, or nobody else can lead",
            s500="the node is stopping",
        ),
    )
    async def drain(request: Request) -> JsonResponse:
        """Hand leadership over, stand for no election, and fail readiness, until this is ended or the node restarts."""
        query: dict[str, bool | int] = parse_query(request.scope["query_string"], {"on": boolean, "id": unsigned})
        on, meant, own = query.get("on"), query.get("id"), context.consensus.status().node_id
        if not isinstance(on, bool):
            return problem(400, ON_MISSING)
        if meant is not None and meant != own:
            return problem(409, f"this is node {own}, not node {meant}: send this to the admin API of node {meant}")
        try:
            if on:
                await context.consensus.drain(DRAIN_TIMEOUT_MS)
            else:
                context.consensus.end_drain()
        except StoppingError as error:
            return problem(500, str(error))
        except NotDoneError as error:
            return problem(409, str(error))
        return JsonResponse({"id": own, "drained": on})
