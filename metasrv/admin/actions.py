"""Routes that do something: each takes POST, and GET because clients of upstream's API send that.

`guard.py` refuses both when a web page may have sent them. Changes of members take POST and DELETE alone. Runs on the
event loop.
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
BACKUP_PATH = "/v1/ctrl/trigger_backup"
POST_PATHS = frozenset({USERS_SET_PATH, READ_ONLY_PATH, DRAIN_PATH, COMPACT_PATH})
"""The paths that take POST alone: what they do stands in the body or the query."""
MEMBERS_PATH = "/v1/cluster/members"
MEMBER_PATH = f"{MEMBERS_PATH}/{{node_id}}"
PROMOTE_PATH = f"{MEMBER_PATH}/promote"
REPLACE_PATH = f"{MEMBER_PATH}/replace"
LOG_LEVELS_PATH = "/v1/log-levels"
"""A read, and a change by PUT."""
DIAGNOSTICS_PATH = "/v1/diagnostics"
"""A read that costs the node something and shows much of it, so that it counts as an action."""
READS = frozenset({"GET", "HEAD"})
Handler = TypeVar("Handler", bound=Callable[..., Any])

ACTION_PATHS = frozenset(
    {
        BACKUP_PATH,
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


def changes_members(method: str, path: str) -> bool:
    """Whether a request is about the members, and more than a read."""
    return is_of_members(path) and method not in READS


def needs_header(method: str, path: str) -> bool:
    """Whether what a request does needs the header of `browsers.py`."""
    return method == "POST" or (method == "DELETE" and is_of_members(path)) or sets_log_level(method, path)


def sets_log_level(method: str, path: str) -> bool:
    """Whether a request is more than a look at the log levels."""
    return path == LOG_LEVELS_PATH and method not in READS


def is_of_members(path: str) -> bool:
    return path == MEMBERS_PATH or path.startswith(f"{MEMBERS_PATH}/")


def member_methods(path: str) -> str:
    """What a path of the members allows."""
    if path == MEMBERS_PATH:
        return "GET, HEAD, POST"
    return "POST" if path.endswith(("/promote", "/replace")) else "DELETE"
