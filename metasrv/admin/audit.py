"""The audit log of the admin port: a line of JSON for each request that changes or profiles the node.

Requests that were refused before they reached a route changed nothing, and whoever reaches the port can send thousands of
them a second. Only the first few of a client within some seconds get a line each; the others are one line with their
count, so that nobody can fill the disk with them, or push the lines of changes out of the log files. Must not know how
a request is judged. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

from metasrv.admin.audit_lines import audit
from metasrv.admin.networks import network_of
from metasrv.model.limits import (
    ADMIN_QUERY_AUDITED_CHARACTERS_MAX,
    ADMIN_REFUSALS_AUDITED_MAX,
    ADMIN_REFUSED_CLIENTS_AUDITED_MAX,
)
from metasrv.node.context import NodeContext

COUNTED_SECONDS = 10.0
"""From the first refusal to the lines with the counts."""


class AuditedRequest(NamedTuple):
    """One request, and how it ended."""

    client: tuple[str, int] | None
    """Address and port."""
    authenticated: bool
    """Whether the caller proved the scope that the route needs."""
    token: str | None
    """The name of the token."""
    certificate: str | None
    scope: str | None
    method: str
    path: str
    query: str
    status_code: int
    seconds: float
    is_refused: bool
    """Whether no route took it."""


class _Client(NamedTuple):
    """Whose refusals are counted together."""

    network: str | None
    """None for all clients past the limit."""
    token: str | None
    certificate: str | None


class Audit:
    """Writes the lines of one listener."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._refused: Counter[_Client] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, request: AuditedRequest) -> None:
        """Write the line of a request, or count it."""
        if request.is_refused and not self._has_line(request):
            return
        status = self._context.consensus.status()
        line: dict[str, Any] = {
            "at_ms": self._context.clock.wall_ms(),
            "node_id": status.node_id,
            "client": f"{request.client[0]}:{request.client[1]}" if request.client else None,
            "authenticated": request.authenticated,
            "token": request.token,
            "certificate": request.certificate,
            "scope": request.scope,
            "method": request.method,
            "path": request.path,
            "query": request.query[:ADMIN_QUERY_AUDITED_CHARACTERS_MAX],
            "status_code": request.status_code,
            "result": _result(request.status_code),
            "seconds": round(request.seconds, 6),
            "term": status.term,
            "last_applied": status.last_applied.index,
        }
        audit(line)

    def report(self) -> None:
        """Write the counts of what had no line, and begin to count anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        refused, self._refused = self._refused, Counter()
        for client, count in refused.items():
            more = count - (0 if client.network is None else ADMIN_REFUSALS_AUDITED_MAX)
            if more <= 0:
                continue
            line = {
                "at_ms": self._context.clock.wall_ms(),
                "node_id": self._context.consensus.status().node_id,
                "client": client.network or "others",
                "token": client.token,
                "certificate": client.certificate,
                "result": "refused",
                "more_refused": more,
                "within_seconds": COUNTED_SECONDS,
            }
            audit(line)

    def _has_line(self, request: AuditedRequest) -> bool:
        """Count a refusal; whether it is one of those that have a line each."""
        network = network_of(request.client[0]) if request.client else ""
        client = _Client(network, request.token, request.certificate)
        if client not in self._refused and len(self._refused) >= ADMIN_REFUSED_CLIENTS_AUDITED_MAX:
            client = _Client(None, None, None)
        self._refused[client] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COUNTED_SECONDS, self.report)
        return client.network is not None and self._refused[client] <= ADMIN_REFUSALS_AUDITED_MAX


def _result(status_code: int) -> str:
    return "done" if status_code < 400 else "refused" if status_code < 500 else "failed"
