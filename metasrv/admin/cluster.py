"""Routes about the cluster and this node: nodes, status, configuration. All are reads of local state.

    GET /v1/cluster/nodes    every registered node
    GET /v1/cluster/status   the status of this node (also under its former name, /v1/cluster/state)
    GET /v1/config           the effective configuration as text

Nothing is proxied to the leader, and nothing here waits. Runs on the event loop.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from metasrv.admin.caching import revalidated
from metasrv.admin.compression import compressed
from metasrv.admin.config_view import config_dump
from metasrv.admin.problem import fault
from metasrv.admin.responses import JsonResponse, TextResponse, codes
from metasrv.admin.schemas import NodeSchema, StatusSchema
from metasrv.admin.views import nodes_view, status_view
from metasrv.model.errors import MetasrvError
from metasrv.node.context import NodeContext

STOPPED = codes(ok="read from this node, without waiting", s500="the node has stopped")


def cluster_router(context: NodeContext) -> APIRouter:
    router = APIRouter(tags=["cluster"])

    @router.get("/v1/cluster/nodes", response_model=list[NodeSchema], operation_id="nodes", responses=STOPPED)
    async def nodes(request: Request) -> Response:
        """Every registered node, voters and learners, from local applied state."""
        try:
            return revalidated(request, JsonResponse(nodes_view(context.consensus.status())))
        except MetasrvError as error:
            return fault(500, f"Failed to get nodes: {error}")

    @router.get("/v1/cluster/status", response_model=StatusSchema, operation_id="status", responses=STOPPED)
    @router.get(
        "/v1/cluster/state", response_model=StatusSchema, operation_id="state", deprecated=True, responses=STOPPED
    )
    async def status(request: Request) -> Response:
        """The status of this node at this instant."""
        try:
            return compressed(request, JsonResponse(status_view(context)))
        except MetasrvError as error:
            return fault(500, f"Failed to get status: {error}")

    @router.get("/v1/config", response_class=TextResponse, operation_id="config")
    async def config(request: Request) -> Response:
        """The effective configuration as text, secrets masked."""
        return revalidated(request, TextResponse(config_dump(context.config)))

    return router
