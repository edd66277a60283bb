"""Make data directories of this version for the tests to open for ever: one of a lone node, one of a member of three.

    python -m scripts.make_data_directory tests/data/directories/0.2

Starts real nodes on loopback, writes records of each kind, has a snapshot written and the log purged, and stops the nodes
in order. Beside each directory stands `expected.json`: what a node found in it on that day, from its own files. Made once
for each release and never again, so that later versions prove that they read what earlier ones wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
from pathlib import Path

from metasrv.client import AsyncClient, Transaction
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.data_directories import describe

HUNDRED_YEARS_MS = 100 * 365 * 86_400_000
FAR_SECONDS = 9_000_000_000
SETTINGS = {"snapshot_logs_since_last": 20, "max_applied_log_to_keep": 5}
"""So that the log has been purged."""
FEATURE = "dummy"
MEMBER = 2


async def write_before_snapshot(client: AsyncClient) -> None:
    await client.upsert("plain", b"value")
    await client.upsert("empty value", b"")
    await client.upsert("bytes", bytes(range(256)))
    await client.upsert("larger", b"0123456789abcdef" * 200)
    for key in ("unicode/é", "unicode/\uffff", "unicode/\U00010000", "zero\0inside"):
        await client.upsert(key, key.encode())
    await client.upsert("expires/in seconds", b"v", expire_at_ms=FAR_SECONDS)
    await client.upsert("expires/in milliseconds", b"v", ttl_ms=HUNDRED_YEARS_MS)
    await client.upsert("overwritten", b"before")
    await client.upsert("deleted", b"v")
    for number in range(20):
        await client.upsert(f"log/{number:02}", b"so that the log has a beginning to purge")


async def write_behind_snapshot(client: AsyncClient) -> None:
    await client.upsert("overwritten", b"after")
    await client.delete("deleted")
    sequential = pb.PutSequential(prefix="queue/", sequence_key="queue counter", value=b"job")
    counter = pb.FetchIncreaseU64(key="counter", delta=41)
    done = await client.transaction(
        pb.TxnRequest(
            condition=[pb.TxnCondition(key="plain", expected=pb.TxnCondition.GT, seq=0)],
            if_then=[pb.TxnOp(put_sequential=sequential), pb.TxnOp(fetch_increase_u64=counter)],
        )
    )
    assert done.success
    await client.transaction(Transaction().when_absent("never there").put("conditional", b"v"))
    # The last write: nothing sweeps it any more, so it stays in the state and is hidden by every read.
    await client.upsert("expired", b"gone", ttl_ms=1)


async def fill(cluster: ProcessCluster, node_id: int) -> None:
    leader = await cluster.boot()
    async with cluster.client() as client:
        await write_before_snapshot(client)
        code, body = await cluster.admin(leader, f"/v1/features/set?feature={FEATURE}&enable=true")
        assert code == 200, body
        await cluster.wait_until_equal()
        assert (await cluster.admin(node_id, "/v1/ctrl/trigger_snapshot"))[0] == 200
        await cluster.wait_for_statuses(
            lambda statuses: statuses[node_id]["snapshot_last_log_id"] is not None, "a snapshot to be written"
        )
        await write_behind_snapshot(client)
    await cluster.wait_until_equal()
    for stopping in sorted(cluster.nodes, key=lambda one: one == node_id):
        assert await cluster.stop(stopping) == 0


async def make(target: Path, size: int, node_id: int) -> None:
    async with ProcessCluster(size, settings=SETTINGS) as cluster:
        await fill(cluster, node_id)
        source = cluster.nodes[node_id].raft_dir
        shutil.copytree(source, target / "data", ignore=shutil.ignore_patterns("LOCK"))
    described = describe(target / "data", node_id)
    assert described["log"]["first"] > 1, "nothing was purged"
    assert described["snapshots"], "there is no snapshot"
    expected = json.dumps(described, indent=1, sort_keys=True)
    (target / "expected.json").write_text(expected + "\n", encoding="utf-8")


async def make_all(target: Path) -> None:
    await make(target / "alone", size=1, node_id=1)
    await make(target / "member", size=3, node_id=MEMBER)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="a directory that does not exist yet")
    target: Path = parser.parse_args().target
    if target.exists():
        parser.error(f"{target} exists; what a release wrote is never made again")
    asyncio.run(make_all(target))
    for file in sorted(target.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:8} {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
