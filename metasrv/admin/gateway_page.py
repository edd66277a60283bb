"""What a gateway on another machine answers over HTTP: `/livez`, `/readyz` and `/metrics`, for everybody.

Runs on that gateway's event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request

from metasrv.admin.cut_offs import CutOffs
from metasrv.admin.head import HeadAsGet
from metasrv.admin.listener import HttpListener, no_tls
from metasrv.admin.problem import install_error_handlers
from metasrv.admin.responses import TextResponse
from metasrv.admin.service import server_config
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.limits import HEALTH_CONNECTIONS_MAX

Standing = Callable[[], tuple[bool, str]]
"""Whether requests can be served, and why, as one sentence."""


def gateway_listener(
    address: str, metrics: MetricsRegistry, standing: Standing, watchers: Callable[[], int]
) -> HttpListener:
    """A listener at `address`, not yet started."""
    what = "the gateway's probes"
    cut_offs = CutOffs(what)
    config = server_config(gateway_app(metrics, standing, watchers), cut_offs, HEALTH_CONNECTIONS_MAX)
    return HttpListener("health", what, address, config, cut_offs, no_tls, metrics)


def gateway_app(metrics: MetricsRegistry, standing: Standing, watchers: Callable[[], int]) -> FastAPI:
    """The application."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install_error_handlers(app)
    app.add_middleware(HeadAsGet)
    headers = {"Cache-Control": "no-store"}

    @app.get("/livez")
    async def livez() -> TextResponse:
        """This process works: it answers."""
        return TextResponse("ok", headers=headers)

    @app.get("/readyz")
    async def readyz() -> TextResponse:
        """Whether requests can be served."""
        serves, sentence = standing()
        return TextResponse(f"{'ok' if serves else 'failed'}: {sentence}", 200 if serves else 503, headers=headers)

    @app.get("/metrics")
    async def page(request: Request) -> TextResponse:
        """What this gateway counts."""
        linked, _ = standing()
        body, content_type = metrics.render_gateway(linked, watchers(), request.headers.get("accept"))
        return TextResponse(body, headers={"Content-Type": content_type})

    return app
