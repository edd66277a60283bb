"""Routes that do something: each takes POST, and GET because clients of upstream's API send that.

`guard.py` refuses both when a web page may have sent them. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

USERS_LIST_PATH = "/v1/users/list"
USERS_SET_PATH = "/v1/users/set"
READ_ONLY_PATH = "/v1/ctrl/read_only"
DRAIN_PATH = "/v1/ctrl/drain"
COMPACT_PATH = "/v1/ctrl/compact"
POST_PATHS = frozenset({USERS_SET_PATH, READ_ONLY_PATH, DRAIN_PATH, COMPACT_PATH})
"""The paths that take POST alone: no client of upstream's API knows them."""
Handler = TypeVar("Handler", bound=Callable[..., Any])

ACTION_PATHS = frozenset(
    {
        "/v1/ctrl/trigger_snapshot",
        "/v1/ctrl/trigger_transfer_leader",
        "/v1/features/set",
        "/debug/pprof/profile",
        "/debug/mem/pprof/profile",
    }
)
"""The paths of all of them."""


def action(router: APIRouter, path: str, *, operation_id: str, **described: Any) -> Callable[[Handler], Handler]:
    """As `router.get`, and the same as `router.post`."""

    if path not in ACTION_PATHS:
        raise ValueError(f"{path} is not among the paths of actions")

    def decorate(handler: Handler) -> Handler:
        router.get(path, operation_id=operation_id, **described)(handler)
        router.post(path, operation_id=f"{operation_id}ByPost", **described)(handler)
        return handler

    return decorate
