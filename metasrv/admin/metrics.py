"""The metrics page: `GET /v1/metrics`, and `/metrics`, where scrapers look by default.

Made from the node's status at the time of the request. Runs on the event loop.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from metasrv.admin.compression import compressed
from metasrv.admin.responses import TextResponse, codes
from metasrv.node.context import NodeContext
from metasrv.node.health import HealthMonitor


def metrics_router(context: NodeContext, monitor: HealthMonitor) -> APIRouter:
    router = APIRouter(tags=["metrics"])

    page = codes(ok="the page, made from the current status", s500="the node has stopped")

    @router.get("/v1/metrics", response_class=TextResponse, operation_id="metrics", responses=page)
    @router.get("/metrics", response_class=TextResponse, operation_id="metricsAlias", responses=page)
    async def metrics(request: Request) -> Response:
        """Prometheus text, or OpenMetrics for readers that name it and no plain text."""
        await monitor.liveness()
        await monitor.readiness()
        seen = context.directory
        if seen is not None and not seen.passed and seen.free_bytes is not None:
            context.metrics.disk_free(seen.free_bytes)  # the look of readiness may be from before the disk filled
        status = context.consensus.status()
        accept = request.headers.get("accept")
        body, content_type = await context.metrics.render_in_slices(status, context.watchers, accept)
        response = TextResponse(body, headers={"Content-Type": content_type})
        return compressed(request, response)

    return router
