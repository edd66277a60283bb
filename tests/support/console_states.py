"""What a node tells the console beside the state of its cluster: history, events, keys, profiles, all made up.

The shapes are those of docs/contract/admin-api.md, the words of events those that nodes use. The states of a cluster are
in `console_scenes.py`; `tests/support/console_server.py` serves both. Deterministic, but for the wall clock of the
caller.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from metasrv.model.events import EventKind, Severity

View = dict[str, Any]
STEP_MS = 2_000
POINTS = 450
MEBIBYTE = 1024 * 1024


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
    """A story: a leader is lost, another one is elected, a snapshot, a refused client; the newest first."""
    info, warning, critical = Severity.INFO, Severity.WARNING, Severity.CRITICAL
    told = [
        (12, 1, EventKind.SNAPSHOT, info, "a snapshot file with 48,310 entries was written", None),
        (95, 3, EventKind.SLOW_STEP, warning, "raft_apply held the event loop 3 times, 412 ms together", None),
        (
            184,
            2,
            EventKind.REFUSED_CLIENT,
            warning,
            "the admin API refused a request with 401, 12 times within 10 s",
            None,
        ),
        (609, 3, EventKind.LEADER, info, "node 1 leads in term 7", 7),
        (
            610,
            1,
            EventKind.LEADER,
            info,
            "node 1 leads in term 7, elected by nodes 1, 3; leader 2 not heard for 1,240 ms",
            7,
        ),
        (612, 1, EventKind.ELECTION, warning, "node 1 begins an election: leader 2 not heard for 1,180 ms", 6),
        (613, 2, EventKind.STEP_DOWN, critical, "node 2 no longer leads: 1 of 3 voters heard, writes are refused", 6),
        (86_400 * 2, 3, EventKind.JOIN, info, "node 3 votes from now on", 6),
        (86_400 * 2 + 40, 2, EventKind.CONFIGURATION, info, "the log level of metasrv.raft is debug for 300 s", None),
    ]
    return [
        {
            "id": f"{node_id}-{seconds}",
            "time_ms": now_ms - seconds * 1000,
            "node_id": node_id,
            "kind": kind.value,
            "severity": severity.value,
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
LOOKS = f"""{STEP} 9
{APPLY} 17
{APPLY};put (state.store:31) 11
{RUN};handle (grpc_api.calls:55) 8
{RUN};handle (grpc_api.calls:55);decode (protocol.codec:12) 5
log_writer (process.logs:91);write (process.logs:120) 2
"""
"""Stacks of the busiest of these minutes, one look a second."""
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
