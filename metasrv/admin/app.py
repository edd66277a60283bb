"""The admin API as one application: a router per area behind one guard, faults as bare text; and probes as another.

Factories and nothing global, so that several nodes may live in one process. Runs on the node's event loop.
"""

from __future__ import annotations

from fastapi import FastAPI

from metasrv.admin.access import Access
from metasrv.admin.audit import Audit
from metasrv.admin.backups import backups_router
from metasrv.admin.bundle import BundleSources
from metasrv.admin.caching import NoStore
from metasrv.admin.cluster import cluster_router
from metasrv.admin.console import console_router
from metasrv.admin.control import control_router
from metasrv.admin.description import description_router
from metasrv.admin.diagnostics import diagnostics_router
from metasrv.admin.features import features_router
from metasrv.admin.guard import Guard
from metasrv.admin.head import HeadAsGet
from metasrv.admin.health import health_router
from metasrv.admin.log_levels import log_levels_router
from metasrv.admin.maintenance import maintenance_router
from metasrv.admin.members import members_router
from metasrv.admin.metrics import metrics_router
from metasrv.admin.pages import pages_router
from metasrv.admin.problem import install_error_handlers
from metasrv.admin.profile_history import profile_history_router
from metasrv.admin.profiling import profiling_router
from metasrv.admin.slow_writes import slow_writes_router
from metasrv.admin.users import users_router
from metasrv.console.console import Console
from metasrv.node.context import NodeContext
from metasrv.node.health import HealthMonitor
from metasrv.profiling.captures import Captures
from metasrv.profiling.continuous import ContinuousProfile
from metasrv.profiling.profile import ProfileSlot

DESCRIPTION = (
    "Every answer is from the node that was asked; only members and users are asked of others, or changed through the "
    "leader, and a console shows what the others say of themselves. Errors are bare text where clients of Databend's "
    "meta service and of probes expect that, and problems in JSON (RFC 9457) of metasrv's own routes. "
    "A query string that cannot be parsed counts as absent."
)


def create_app(
    context: NodeContext,
    access: Access | None = None,
    console: Console | None = None,
    continuous: ContinuousProfile | None = None,
    audit: Audit | None = None,
) -> FastAPI:
    """The application that serves `context`; `/openapi.json` describes it.

    Without `access` it reads the tokens itself, and raises ConfigError when it cannot. Without `console` it shows one
    that does not sample, without `continuous` no minute is kept.
    """
    app = FastAPI(
        title="metasrv admin API",
        version=context.binary_version,
        description=DESCRIPTION,
        openapi_url=None,  # `description.py` has it
        # The framework's own would load scripts from elsewhere; `pages.py` has one that does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.add_middleware(HeadAsGet)
    access, audit = access or Access(context.config), audit or Audit(context)
    app.add_middleware(Guard, context=context, access=access, audit=audit)
    app.add_middleware(NoStore)
    monitor = HealthMonitor(context)
    app.include_router(health_router(monitor))
    app.include_router(cluster_router(context))
    app.include_router(members_router(context))
    app.include_router(metrics_router(context, monitor))
    console = console or Console(context)
    profiles = ProfileSlot()
    app.include_router(console_router(context, console))
    app.include_router(slow_writes_router(context))
    app.include_router(log_levels_router(context))
    app.include_router(control_router(context))
    app.include_router(features_router(context))
    app.include_router(users_router(context))
    app.include_router(backups_router(context))
    app.include_router(maintenance_router(context))
    captures = Captures()
    app.include_router(profiling_router(context, captures, profiles))
    history = continuous or ContinuousProfile(0, context.clock.wall_ms)
    app.include_router(profile_history_router(context, history, captures))
    app.include_router(diagnostics_router(BundleSources(context, console, monitor, profiles)))
    app.include_router(pages_router())
    app.include_router(description_router(app))
    return app


def create_health_app(context: NodeContext) -> FastAPI:
    """Probes and nothing else, for everybody and under any name."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    install_error_handlers(app)
    app.add_middleware(HeadAsGet)
    app.add_middleware(NoStore)
    app.include_router(health_router(HealthMonitor(context)))
    return app
