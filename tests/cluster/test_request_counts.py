"""What a write and a read cost three real nodes, counted where it does not depend on the machine.

System calls are counted by strace, but for those that wait, whose number depends on the machine; syncs, entries and bytes
by the nodes themselves. One client sends one request after the other, so nothing is batched. A bound is a little
above what was counted when it was written; a change that costs more has to say so here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import RecordProperty
from tests.support.system_calls import SystemCalls, counts_in

REQUESTS = 200
VALUE = b"v" * 256
IDLE_PER_SECOND = {"read": 45, "write": 45, "pwrite64": 5, "fdatasync": 1.5}
"""Calls of a node that nobody asks anything: heartbeats, looks at the directory, upkeep."""
OUTPUT = ("write", "writev", "sendto", "sendmsg")
INPUT = ("read", "readv", "recvfrom", "recvmsg")


class Bounds(NamedTuple):
    """Calls of one node for one request, at most."""

    fdatasync: float
    pwrite64: float
    output: float
    """To sockets, and to what wakes a thread."""
    input: float


WRITE_LEADER = Bounds(fdatasync=1.1, pwrite64=5, output=5, input=5)
"""Counted: 1.0, 4.0 to 4.5, 4.1 to 4.4, 4.0 to 4.2. Output: messages to two peers, the answer, wake-ups of threads."""
WRITE_FOLLOWER = Bounds(fdatasync=1.1, pwrite64=5, output=3, input=3)
"""Counted: 0.9, 3.7, 2.0, 2.1."""
READ_LEADER = Bounds(fdatasync=0.05, pwrite64=0.2, output=3.6, input=3.6)
"""Counted: 0, 0, 3.2, 3.1. Output: a question to each of two peers, the answer."""
READ_FOLLOWER = Bounds(fdatasync=0.05, pwrite64=0.2, output=1.5, input=1.5)
"""Counted: 0, 0, 1.1, 1.1. Output: the answer to the leader's question."""


def per_request(counts: dict[str, int], seconds: float) -> Bounds:
    """Calls of one request, without those that an idle node makes in this time."""

    def of(*names: str, idle: str | None = None) -> float:
        total = sum(counts.get(name, 0) for name in names)
        return max(0.0, total - IDLE_PER_SECOND[idle or names[0]] * seconds) / REQUESTS

    return Bounds(
        fdatasync=of("fdatasync"),
        pwrite64=of("pwrite64"),
        output=of(*OUTPUT, idle="write"),
        input=of(*INPUT, idle="read"),
    )


async def counted(
    cluster: ProcessCluster, directory: Path, leader: int, request: Callable[[], Awaitable[object]]
) -> tuple[Bounds, Bounds]:
    """Calls of the leader and of one follower for a request."""
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    found = []
    processes = [cluster.nodes[node_id].process for node_id in (leader, follower)]
    pids = [process.pid for process in processes if process is not None]
    with SystemCalls(pids[0], directory) as first, SystemCalls(pids[1], directory) as second:
        started = time.monotonic()
        for _ in range(REQUESTS):
            await request()
        seconds = time.monotonic() - started
    found = [per_request(calls.counts, seconds) for calls in (first, second)]
    return found[0], found[1]


def check(name: str, found: Bounds, bounds: Bounds) -> str:
    """A sentence of what was counted; fails where it is more than may be."""
    over = {
        call: (round(count, 2), most)
        for call, count, most in zip(Bounds._fields, found, bounds, strict=True)
        if count > most
    }
    assert not over, f"{name}: more calls than before, counted and allowed: {over}"
    return f"{name}: " + ", ".join(f"{call} {count:.1f}" for call, count in found._asdict().items())


async def test_system_calls_of_a_write_and_of_a_read(
    cluster: ProcessCluster, tmp_path: Path, record_property: RecordProperty
) -> None:
    leader = await cluster.wait_for_leader()
    async with cluster.node_client(leader) as client:
        await client.put("k", VALUE)
        of_leader, of_follower = await counted(cluster, tmp_path, leader, lambda: client.put("k", VALUE))
        record_property("measured", check("a write, the leader", of_leader, WRITE_LEADER))
        record_property("measured", check("a write, a follower", of_follower, WRITE_FOLLOWER))
        assert of_leader.fdatasync > 0.5, "every write is synced before it is answered"
        of_leader, of_follower = await counted(cluster, tmp_path, leader, lambda: client.get("k"))
        record_property("measured", check("a read, the leader", of_leader, READ_LEADER))
        record_property("measured", check("a read, a follower", of_follower, READ_FOLLOWER))


async def samples(cluster: ProcessCluster, node_id: int) -> dict[str, float]:
    """The metrics of a node, by name and labels."""
    _, page = await cluster.admin(node_id, "/v1/metrics")
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_syncs_messages_and_bytes_of_a_write(cluster: ProcessCluster, record_property: RecordProperty) -> None:
    """Value of 256 bytes. Heartbeats are in the bytes and messages, so their bounds leave room for a slow machine."""
    leader = await cluster.wait_for_leader()
    async with cluster.node_client(leader) as client:
        await client.put("k", VALUE)
        before, started = await samples(cluster, leader), time.monotonic()
        for _ in range(REQUESTS):
            await client.put("k", VALUE)
        seconds, after = time.monotonic() - started, await samples(cluster, leader)

    def grown(name: str) -> float:
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key.partition("{")[0] == name)

    syncs = grown("metasrv_raft_log_sync_seconds_count") / REQUESTS
    entries = grown("metasrv_raft_log_synced_entries_total") / REQUESTS
    applied = grown("metasrv_raft_applied_commands_total") / REQUESTS
    to_peers = grown("metasrv_raft_network_sent_bytes_total") / REQUESTS
    from_client, to_client = (grown(f"metasrv_meta_network_{way}_bytes_total") / REQUESTS for way in ("recv", "sent"))
    commits = grown("metasrv_raft_state_commit_seconds_count")
    text = (
        f"{syncs:.2f} syncs, {to_peers:.0f} bytes to two peers, {from_client:.0f} from and {to_client:.0f} to the client"
    )
    record_property("measured", f"a write: {text}; {commits:.0f} commits of the state in {seconds:.1f} s")
    assert (entries, applied) == (1, 1)
    assert 0.9 <= syncs <= 1.1
    assert to_peers <= 2 * 450 + 4_000 * seconds / REQUESTS, "an entry and its commit to each of two followers"
    assert from_client <= 280
    assert to_client <= 580, "a put answers with the record before and the record after"
    assert commits <= 25 * seconds + 2, "entries of fifty milliseconds share a commit"


def test_the_table_of_strace_is_read() -> None:
    table = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.001200           6       200           futex
 40.00    0.000800           4       180        12 read
------ ----------- ----------- --------- --------- ----------------
100.00    0.002000           5       380        12 total
"""
    assert counts_in(table) == {"futex": 200, "read": 180}


@pytest.mark.parametrize("name", Bounds._fields)
def test_a_call_more_than_allowed_is_noticed(name: str) -> None:
    more = WRITE_LEADER._replace(**{name: getattr(WRITE_LEADER, name) + 0.5})
    with pytest.raises(AssertionError, match=name):
        check("a write", more, WRITE_LEADER)
