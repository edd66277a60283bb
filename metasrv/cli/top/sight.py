"""What `metactl top` shows, read from the lines of `/v1/console/stream`, whatever these hold.

A member that is missing or has another type is not known; texts are made harmless for a terminal; lists are cut at their
limits. So a node of another release, or something that is no node, cannot break the view. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from metasrv.cli.terminal import visible
from metasrv.model.limits import TOP_EVENTS_MAX, TOP_POINTS_MAX, TOP_ROWS_MAX

TEXT_CHARACTERS_MAX = 500

Number = float | int | None


class NodeSight(NamedTuple):
    """One member, as the node that answers sees it."""

    node_id: int
    role: str
    votes: bool
    reachable: bool
    ready: bool | None
    draining: bool
    term: Number
    lag_entries: Number
    last_contact_ms: Number
    clock_offset_ms: Number
    uptime_ms: Number
    version: str
    database_bytes: Number
    log_bytes: Number
    grpc_address: str
    admin_url: str
    why: str
    """The first check that fails; empty when none does."""


class ProblemSight(NamedTuple):
    """One thing that is wrong."""

    critical: bool
    title: str
    text: str
    runbook: str


class EventSight(NamedTuple):
    """One thing that happened."""

    time_ms: int
    node_id: int
    severity: str
    kind: str
    text: str


class ClusterSight(NamedTuple):
    """The cluster at one instant."""

    answered_by: int
    now_ms: int
    name: str
    leader_id: int | None
    term: Number
    voters: int
    failures: int | None
    """Voters that may still fail; None without a leader or a majority."""
    tolerance_text: str
    read_only_reason: str | None
    """None while writes are taken."""
    empty: bool
    waiting_for: str
    nodes: tuple[NodeSight, ...]
    problems: tuple[ProblemSight, ...]


class Sight(NamedTuple):
    """Everything that one frame shows."""

    cluster: ClusterSight | None = None
    series: Mapping[str, tuple[Number, ...]] = {}
    """The last minutes of the node that answers, oldest first."""
    step_ms: int = 2_000
    events: tuple[EventSight, ...] = ()
    """Oldest first."""

    def learnt(self, line: Mapping[str, Any]) -> Sight:
        """With what one line of the stream tells; a line of an unknown type changes nothing."""
        kind = line.get("type")
        if kind == "state":
            return self._replace(cluster=_cluster(_mapping(line.get("state"))))
        if kind == "history":
            given = _mapping(line.get("history"))
            series = {str(name): _points(points) for name, points in _mapping(given.get("series")).items()}
            return self._replace(series=series, step_ms=int(_number(given.get("step_ms")) or 2_000))
        if kind == "point":
            return self._replace(series=_with_point(self.series, _mapping(line.get("values"))))
        if kind == "events":
            found = tuple(_event(_mapping(event)) for event in _rows(line.get("events"), TOP_EVENTS_MAX))
            return self._replace(events=found)
        if kind == "event":
            return self._replace(events=(*self.events, _event(_mapping(line.get("event"))))[-TOP_EVENTS_MAX:])
        return self


def _with_point(series: Mapping[str, tuple[Number, ...]], values: Mapping[str, Any]) -> dict[str, tuple[Number, ...]]:
    return {name: (*points, _number(values.get(name)))[-TOP_POINTS_MAX:] for name, points in series.items()}


def _points(given: Any) -> tuple[Number, ...]:
    return tuple(_number(value) for value in _rows(given, TOP_POINTS_MAX))


def _cluster(state: Mapping[str, Any]) -> ClusterSight:
    cluster = _mapping(state.get("cluster"))
    return ClusterSight(
        answered_by=_integer(state.get("answered_by")) or 0,
        now_ms=_integer(state.get("now_ms")) or 0,
        name=_text(cluster.get("name")),
        leader_id=_integer(cluster.get("leader_id")),
        term=_number(cluster.get("term")),
        voters=len(_rows(cluster.get("voters"), TOP_ROWS_MAX)),
        failures=_integer(cluster.get("failure_tolerance")),
        tolerance_text=_text(cluster.get("tolerance_text")),
        read_only_reason=_text(cluster.get("read_only_reason")) if cluster.get("read_only") is True else None,
        empty=cluster.get("empty") is True,
        waiting_for="" if cluster.get("joined") is True else _text(cluster.get("waiting_for")),
        nodes=tuple(_node(_mapping(node)) for node in _rows(state.get("nodes"), TOP_ROWS_MAX)),
        problems=tuple(_problem(_mapping(problem)) for problem in _rows(state.get("problems"), TOP_ROWS_MAX)),
    )


def _node(node: Mapping[str, Any]) -> NodeSight:
    ready = node.get("ready")
    return NodeSight(
        node_id=_integer(node.get("id")) or 0,
        role=_text(node.get("role")) or "unknown",
        votes=node.get("votes") is True,
        reachable=node.get("reachable") is True,
        ready=ready if isinstance(ready, bool) else None,
        draining=node.get("draining") is True,
        term=_number(node.get("term")),
        lag_entries=_number(node.get("lag_entries")),
        last_contact_ms=_number(node.get("last_contact_ms")),
        clock_offset_ms=_number(node.get("clock_offset_ms")),
        uptime_ms=_number(node.get("uptime_ms")),
        version=_text(node.get("version")),
        database_bytes=_number(node.get("database_bytes")),
        log_bytes=_number(node.get("log_bytes")),
        grpc_address=_text(node.get("grpc_address")),
        admin_url=_text(node.get("admin_url")),
        why=next(
            (
                _text(check.get("reason"))
                for check in map(_mapping, _rows(node.get("checks"), TOP_ROWS_MAX))
                if check.get("ok") is False
            ),
            "",
        ),
    )


def _problem(problem: Mapping[str, Any]) -> ProblemSight:
    return ProblemSight(
        critical=problem.get("severity") == "critical",
        title=_text(problem.get("title")),
        text=_text(problem.get("text")),
        runbook=_text(problem.get("runbook")),
    )


def _event(event: Mapping[str, Any]) -> EventSight:
    return EventSight(
        time_ms=_integer(event.get("time_ms")) or 0,
        node_id=_integer(event.get("node_id")) or 0,
        severity=_text(event.get("severity")),
        kind=_text(event.get("kind")),
        text=_text(event.get("text")),
    )


# ----------------------------------------------------------------------------- values


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, count_max: int) -> list[Any]:
    """The newest, which stand last."""
    return value[-count_max:] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return visible(value[:TEXT_CHARACTERS_MAX]) if isinstance(value, str) else ""


def _number(value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 2**63 and math.isfinite(value) else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return number if isinstance(number, int) else None


def known(values: Iterable[Number]) -> list[float]:
    """Those that are known."""
    return [value for value in values if value is not None]
