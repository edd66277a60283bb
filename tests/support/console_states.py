"""What a node may tell the console, one function a state: answers of `GET /v1/console` and its companions, made up.

The shapes are those of docs/contract/admin-api.md; `tests/support/console_server.py` serves them. Deterministic, but for
the wall clock of the caller.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

View = dict[str, Any]
STEP_MS = 2_000
POINTS = 450
MEBIBYTE = 1024 * 1024
CHECKS = {
    "loop": "the event loop beat 0.0 s ago, 2 ms late",
    "engine": "the engine runs as follower in term 7",
    "joined": "this node is registered with the cluster",
    "member": "this node has not been removed from the cluster",
    "draining": "this node is not shutting down",
    "leader": "the leader, node 1, was heard 62 ms ago",
    "apply_lag": "0 committed entries are not yet applied, the limit is 1000",
    "disk": "the disk answers writes of the log and the state",
    "snapshot": "no snapshot is being installed",
    "data_directory": "the data directory can be written and has 80217 MiB left",
}


def checks(**failing: tuple[str, str | None]) -> list[View]:
    """Every check; `failing` gives reason and runbook of those that fail."""
    made = []
    for name, reason in CHECKS.items():
        failed = failing.get(name)
        made.append(
            {
                "name": name,
                "ok": failed is None,
                "reason": failed[0] if failed else reason,
                "runbook": failed[1] if failed else None,
            }
        )
    return made


def node(node_id: int, role: str = "follower", **changes: Any) -> View:
    """One node as another one sees it."""
    return {
        "id": node_id,
        "name": str(node_id),
        "role": role,
        "votes": role not in ("learner", "removed"),
        "reachable": True,
        "term": 7,
        "version": "0.5.0+1ed2298a0c11",
        "admin_address": f"10.0.4.{10 + node_id}:28101",
        "grpc_address": f"meta{node_id}.example:9191",
        "raft_address": f"meta{node_id}.example:28103",
        "uptime_ms": 3 * 86_400_000 + node_id * 4_000_000,
        "clock_offset_ms": [0.4, -1.2, 2.1, 0.0][node_id % 4],
        "last_log_index": 1_284_467,
        "applied_index": 1_284_467,
        "lag_entries": None if role == "leader" else 0,
        "last_contact_ms": None if role == "leader" else 40 + 11 * node_id,
        "round_trip_ms": None if role == "leader" else round(0.31 + node_id / 10, 2),
        "bytes_sent_per_second": 412_000.0 + 1000 * node_id,
        "bytes_received_per_second": 398_000.0 + 900 * node_id,
        "database_bytes": 212 * MEBIBYTE,
        "log_bytes": 18 * MEBIBYTE,
        "ready": True,
        "checks": checks(),
        **changes,
    }


def gone(node_id: int, **changes: Any) -> View:
    """A node that does not answer; the values that nobody knows are null."""
    unknown = dict.fromkeys(
        ("term", "version", "uptime_ms", "clock_offset_ms", "last_log_index", "applied_index", "round_trip_ms", "ready")
    )
    silent: View = {**unknown, "bytes_sent_per_second": None, "bytes_received_per_second": None, "checks": []}
    silent |= {
        "database_bytes": None,
        "log_bytes": None,
        "reachable": False,
        "lag_entries": 1_842,
        "last_contact_ms": 48_200,
    }
    return node(node_id, "unreachable", **{**silent, "votes": True, **changes})


def cluster(nodes: list[View], now_ms: int, answered_by: int = 1, **changes: Any) -> View:
    """The whole answer; `changes` go to its `cluster`, but for `problems`."""
    problems = changes.pop("problems", [])
    leader = next((one["id"] for one in nodes if one["role"] == "leader"), None)
    return {
        "schema": 1,
        "now_ms": now_ms,
        "answered_by": answered_by,
        "cluster": {
            "name": "orders",
            "id": "6f1c2b7e90aa41d3",
            "leader_id": leader,
            "term": 7,
            "voters": [one["id"] for one in nodes if one["votes"]],
            "learners": [one["id"] for one in nodes if one["role"] == "learner"],
            "failure_tolerance": 1,
            "tolerance_text": "one node may fail, and the cluster goes on",
            "read_only": False,
            "empty": False,
            **changes,
        },
        "nodes": nodes,
        "problems": problems,
    }


def problem(severity: str, title: str, text: str, node_id: int | None = None, runbook: str | None = None) -> View:
    return {"severity": severity, "title": title, "text": text, "node_id": node_id, "runbook": runbook}


def healthy(now_ms: int) -> View:
    return cluster([node(1, "leader"), node(2), node(3)], now_ms)


def one_node_lost(now_ms: int) -> View:
    text = "It was last heard 48 s ago. Start it again, or look why its machine does not answer."
    lagging = node(
        2,
        lag_entries=1_310,
        last_log_index=1_283_157,
        applied_index=1_283_157,
        last_contact_ms=2_300,
        ready=False,
        checks=checks(apply_lag=("1310 committed entries are not yet applied, the limit is 1000", "lagging-node")),
    )
    return cluster(
        [node(1, "leader"), lagging, gone(3)],
        now_ms,
        failure_tolerance=0,
        tolerance_text="one more failure stops the cluster",
        problems=[
            problem("warning", "A follower lags", "Node 2 is 1,310 entries behind; its disk is slow.", 2, "lagging-node"),
            problem("critical", "A voter does not answer", text, 3, "no-leader"),
        ],
    )


def no_leader(now_ms: int) -> View:
    failing = checks(leader=("no leader is known", "no-leader"))
    nodes = [node(1, "candidate", ready=False, checks=failing), node(2, ready=False, checks=failing)]
    nodes.append(node(3, ready=False, checks=failing))
    for one in nodes:
        one |= {"lag_entries": None, "last_contact_ms": None}
    text = "No node leads for 3 s. Writes are refused. The nodes may not hear each other."
    found = [problem("critical", "No leader", text, None, "no-leader")]
    return cluster(nodes, now_ms, failure_tolerance=None, tolerance_text="", problems=found)


def no_majority(now_ms: int) -> View:
    failing = checks(leader=("1 of 3 voters is heard, so none can lead", "no-leader"))
    nodes = [node(1, "candidate", ready=False, checks=failing), gone(2, lag_entries=None), gone(3, lag_entries=None)]
    text = "One of three voters answers. Start the others; nothing else helps, and nothing is lost."
    found = [problem("critical", "No majority", text, None, "no-leader")]
    return cluster(nodes, now_ms, failure_tolerance=None, tolerance_text="", problems=found)


def learner(now_ms: int) -> View:
    leader = node(1, "leader", round_trip_ms=0.9, last_contact_ms=31)
    nodes = [leader, node(2), node(3), node(4, "learner", lag_entries=220)]
    return cluster(nodes, now_ms, answered_by=4)


def removed(now_ms: int) -> View:
    failing = checks(member=("the leader removed this node at entry 1284001", "removed-node"))
    nodes = [node(1, "leader"), node(2), node(3), node(4, "removed", ready=False, checks=failing)]
    text = "It was removed at entry 1284001 and serves nothing. Stop it."
    found = [problem("critical", "This node was removed", text, 4, "removed-node")]
    return cluster(nodes, now_ms, answered_by=4, problems=found)


def read_only(now_ms: int) -> View:
    text = "Less than 256 MiB are free on node 1, so the cluster takes no writes. Make room, and it goes on by itself."
    found = [problem("critical", "The disk is nearly full", text, 1, "disk-full")]
    return cluster([node(1, "leader"), node(2), node(3)], now_ms, read_only=True, problems=found)


def first_start(now_ms: int) -> View:
    small: View = {
        "database_bytes": 40_960,
        "log_bytes": 28_672,
        "last_log_index": 6,
        "applied_index": 6,
        "uptime_ms": 41_000,
    }
    small |= {"bytes_sent_per_second": 610.0, "bytes_received_per_second": 590.0}
    nodes = [node(1, "leader", **small), node(2, **small), node(3, **small)]
    for position, one in enumerate(nodes):
        one |= {"admin_address": f"127.0.0.1:28{position + 1}01", "grpc_address": f"127.0.0.1:919{position + 1}"}
    return cluster(nodes, now_ms, name="local", empty=True)


def waiting(now_ms: int) -> View:
    """A node that has not joined yet: nobody is a member as far as it knows."""
    reason = "for a leader to register with: no answer from meta2.example:28103"
    return cluster([], now_ms, waiting_for=reason, empty=True)


def lone(now_ms: int) -> View:
    text = "the only node; a failure stops the cluster"
    return cluster([node(1, "leader")], now_ms, failure_tolerance=0, tolerance_text=text)


def seven(now_ms: int) -> View:
    nodes = [node(1), node(2), node(3, "leader"), node(4), node(5), node(6), node(7, "learner", lag_entries=12)]
    nodes[4] = gone(5)
    return cluster(nodes, now_ms, answered_by=2, failure_tolerance=1)


STATES: dict[str, Callable[[int], View]] = {
    "healthy": healthy,
    "one-node-lost": one_node_lost,
    "no-leader": no_leader,
    "no-majority": no_majority,
    "learner": learner,
    "removed": removed,
    "read-only": read_only,
    "first-start": first_start,
    "waiting": waiting,
    "lone": lone,
    "seven": seven,
}


def point(position: int) -> dict[str, float | None]:
    """The values of one moment: a load that breathes, with a burst and a gap."""
    if 180 <= position < 196:
        return dict.fromkeys(history_names())
    wave = math.sin(position / 23) + 0.4 * math.sin(position / 5.1) + 0.25 * math.sin(position * 1.9)
    burst = 2.4 if 300 <= position < 330 else 1.0
    writes = max(0.0, (820 + 160 * wave) * burst)
    return {
        "writes_per_second": round(writes, 1),
        "reads_per_second": round(1_900 + 240 * wave, 1),
        "write_p50_ms": round(1.8 + 0.2 * wave * burst, 2),
        "write_p99_ms": round(5.1 + 1.4 * abs(wave) * burst, 2),
        "read_p99_ms": round(2.2 + 0.6 * abs(wave), 2),
        "sync_ms": round(0.7 + 0.2 * abs(wave) * burst, 2),
        "batch_commands": round(9 + 3 * wave * burst, 1),
        "loop_lag_ms": round(0.4 + 0.6 * abs(wave), 2),
        "memory_bytes": 96 * MEBIBYTE + position * 9_000,
        "database_bytes": 201 * MEBIBYTE + position * 25_000,
        "log_bytes": (position * 60_000) % (24 * MEBIBYTE) + 6 * MEBIBYTE,
        "watchers": 14 + (position // 90),
        "connections": 38 + round(4 * wave),
    }


def history_names() -> list[str]:
    return [
        *("writes_per_second", "reads_per_second", "write_p50_ms", "write_p99_ms", "read_p99_ms", "sync_ms"),
        *("batch_commands", "loop_lag_ms", "memory_bytes", "database_bytes", "log_bytes", "watchers", "connections"),
    ]


def history(now_ms: int) -> View:
    points = [point(position) for position in range(POINTS)]
    series = {name: [one[name] for one in points] for name in history_names()}
    return {"step_ms": STEP_MS, "start_ms": now_ms - (POINTS - 1) * STEP_MS, "series": series}


def events(now_ms: int) -> list[View]:
    """A story: a leader is lost, another one is elected, a snapshot, a refused client."""
    told = [
        (12, 1, "snapshot_written", "info", "a snapshot of 212 MiB up to entry 1284001 was written in 1.9 s", None),
        (95, 3, "slow_step", "warning", "the event loop was held for 41 ms by a scrape of the metrics", None),
        (184, 2, "client_refused", "warning", "a client at 10.0.9.7 gave a wrong password 12 times within 10 s", None),
        (610, 1, "leader_elected", "info", "node 1 leads with the votes of nodes 1 and 3", 7),
        (611, 3, "vote", "info", "voted for node 1, whose log ends with entry 1190233", 7),
        (612, 1, "election_started", "warning", "leader 2 was not heard for 1,240 ms", 7),
        (613, 2, "step_down", "critical", "1 of 3 voters heard, writes are refused", 6),
        (86_400 * 2, 3, "node_joined", "info", "node 3 joined as a voter", 6),
        (86_400 * 2 + 40, 2, "configuration_changed", "info", "the level of metasrv.raft is DEBUG for 300 s", None),
    ]
    return [
        {
            "id": f"{node_id}-{seconds}",
            "time_ms": now_ms - seconds * 1000,
            "node_id": node_id,
            "kind": kind,
            "severity": severity,
            "text": text,
            "term": term,
        }
        for seconds, node_id, kind, severity, text, term in told
    ]


KEYS: View = {
    "prefixes": [
        {"prefix": "__fd_database/", "keys": 1_204, "bytes": 412_000},
        {"prefix": "__fd_table_by_id/", "keys": 48_310, "bytes": 61_000_000},
        {"prefix": "__fd_user/", "keys": 12, "bytes": 3_400},
    ],
    "records": [
        {"key": "greeting", "seq": 3, "size_bytes": 5, "expires_at_ms": None},
        {"key": "settings", "seq": 19, "size_bytes": 62, "expires_at_ms": None},
        {"key": "table", "seq": 4_211, "size_bytes": 34, "expires_at_ms": None},
    ],
    "more": True,
}
PROTOBUF = bytes.fromhex("08e90712066f7264657273") + bytes.fromhex("1a0808011204") + b"east" + bytes.fromhex("22030001ff")
VALUES = {
    "greeting": b"hello",
    "settings": json.dumps({"retention_days": 30, "tags": ["a", "b"]}).encode(),
    "table": PROTOBUF,
    "<img src=x onerror=alert(1)>": b"<script>alert(1)</script>",
}


def record(key: str) -> View:
    value = VALUES[key]
    return {
        "key": key,
        "seq": 4_211,
        "meta": {"expire_at": None, "proposed_at_ms": 1_795_480_063_932},
        "expires_at_ms": None,
        "size_bytes": len(value),
        "value_base64": base64.b64encode(value).decode(),
        "truncated": False,
    }


RUN = "main (cli.server:40);run (asyncio.runners:118)"
STEP = f"{RUN};step (raft.driver:210)"
APPLY = f"{STEP};apply (state.machine:88)"
MINUTE_MS = 60_000
BUSY_LOOKS = (4, 6, 5, 9, 38, 52, 21, 7, 5, 6, 3)
"""How often a thread was at work, in the 60 looks of each kept minute."""


def minutes(now_ms: int) -> dict[str, Any]:
    """The minutes that the continuous profile has kept."""
    first_ms = now_ms // MINUTE_MS * MINUTE_MS - (len(BUSY_LOOKS) - 1) * MINUTE_MS
    kept = [
        {"start_ms": first_ms + place * MINUTE_MS, "looks": 60, "busy_looks": busy}
        for place, busy in enumerate(BUSY_LOOKS)
    ]
    return {"frequency_hertz": 1, "minutes": kept}


CAPTURES = {"captures": [{"capture": "20261127T031205Z", "started_at_ms": 1_795_749_125_000, "seconds": 5}]}
FOLDED = f"""{STEP} 180
{APPLY} 90
{APPLY};put (state.store:31) 60
{RUN};handle (grpc_api.calls:55) 120
{RUN};handle (grpc_api.calls:55);decode (protocol.codec:12) 70
log_writer (process.logs:91);write (process.logs:120) 25
"""
CHANGED = f"""{APPLY} 90000 2400000
{RUN};handle (grpc_api.calls:55);decode (protocol.codec:12) 800000 100000
{RUN};keep (grpc_api.sessions:31) 0 700000
"""
"""Stacks of two memory profiles, with the bytes of both."""


LOG_LEVELS = {
    "levels": [
        {"logger": "root", "level": "info", "configured": "info", "expires_at_ms": None},
        {"logger": "metasrv.raft", "level": "warn", "configured": "warn", "expires_at_ms": None},
    ],
    "loggers": ["root", "metasrv", "metasrv.admin", "metasrv.grpc_api", "metasrv.raft", "metasrv.raft.core.driver"],
    "level_names": ["off", "critical", "error", "warn", "info", "debug", "trace"],
    "seconds_default": 300,
    "seconds_max": 86_400,
}


def slow_writes(now_ms: int, with_keys: bool) -> View:
    """What `/v1/slow-writes` answers."""

    def write(
        ago_ms: int, milliseconds: float, size_bytes: int, operations: int, failure: str | None, *keys: str
    ) -> View:
        return {
            "ended_at_ms": now_ms - ago_ms,
            "milliseconds": milliseconds,
            "size_bytes": size_bytes,
            "method": "Transaction",
            "operations": operations,
            "keys": list(keys) if with_keys else None,
            "failure": failure,
        }

    slowest = [
        write(41_000, 5_002.4, 311, 1, "unknown_outcome", "__fd_table_by_id/981"),
        write(182_000, 412.8, 3_981_224, 14, None, "__fd_table_copied_files/981/a", "__fd_table_copied_files/981/b"),
        write(11_000, 38.2, 640, 2, None, "__fd_database/tenant1/sales", "__fd_database_by_id/57"),
    ]
    return {
        "node_id": 1,
        "minutes": 10,
        "keys": None if with_keys else "keys are not shown: `admin_key_browser = true` turns that on",
        "slowest": slowest,
        "largest": sorted(slowest, key=lambda one: -int(one["size_bytes"])),
    }
