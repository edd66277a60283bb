"""Keep the data directories of a cluster of three nodes of a release, for later releases to open.

    python -m scripts.make_release_data 0.2.0

Starts nodes of the wheel under tests/data/releases on loopback, writes records of each kind, users, features, has
snapshots written and logs purged, and stops the nodes in order. `expected.json` has what those nodes said of themselves.
Made once for each release and never again (tests/data/releases/README.md).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from metasrv.client import AsyncClient
from metasrv.testing.processes import ProcessCluster
from scripts.make_data_directory import SETTINGS, write_before_snapshot, write_behind_snapshot
from tests.support.metactl import metactl
from tests.support.releases import (
    KEPT_SECRETS,
    USER,
    USER_PASSWORD,
    directories_of,
    unpacked,
    wheel_of,
)

SIZE = 3
FEATURES = ("dummy", "users")
LARGE_VALUE = b"".join(hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(64)) * 64
LEASE_MS = 100 * 365 * 86_400_000


async def fill(cluster: ProcessCluster, leader: int) -> None:
    address = cluster.nodes[leader].admin
    for feature in FEATURES:
        await metactl(
            *("set-feature", "--feature", feature, "--enable", "true", "--admin-api-address", address),
            environment=KEPT_SECRETS,
        )
    for arguments, given in (
        (("add", "--name", USER), f"{USER_PASSWORD}\n"),
        (("grant", "--name", USER, "--right", "write", "--prefix", "log/"), ""),
    ):
        await metactl(
            *("user", *arguments, "--admin-api-address", address), given=given.encode(), environment=KEPT_SECRETS
        )
    async with client_of(cluster) as client:
        await write_before_snapshot(client)
        await client.upsert("large/300 kB", LARGE_VALUE)
        for number in range(10):
            await client.upsert(f"lease/{number}", b"held", ttl_ms=LEASE_MS + number)
        await cluster.wait_until_equal()
        for node in cluster.nodes.values():
            await metactl("trigger-snapshot", "--admin-api-address", node.admin, environment=KEPT_SECRETS)
        await cluster.wait_for_statuses(
            lambda statuses: all(status["snapshot_last_log_id"] is not None for status in statuses.values()), "snapshots"
        )
        await write_behind_snapshot(client)
    await cluster.wait_until_equal()


def client_of(cluster: ProcessCluster) -> AsyncClient:
    endpoints = [str(node.grpc) for node in cluster.nodes.values()]
    return AsyncClient(endpoints, password=KEPT_SECRETS["METASRV_GRPC_PASSWORD"])


async def described(cluster: ProcessCluster) -> dict[str, Any]:
    """What clients and nodes say; values as hashes. The last write has expired, and no read shows it."""
    async with client_of(cluster) as client:
        records = {
            key: {
                "seq": record.seq,
                "sha256": hashlib.sha256(record.data).hexdigest(),
                "expire_at": None if record.meta is None else record.meta.expire_at,
            }
            for key, record in await client.list_prefix("")
        }
    statuses = await cluster.statuses()
    return {
        "records": records,
        "features": list(FEATURES),
        "users": [USER],
        "nodes": {
            str(node_id): {
                "version": status["binary_version"],
                "cluster_id": status["cluster_id"],
                "last_applied": status["last_applied"]["index"],
                "purged": status["purged"]["index"],
                "last_seq": status["last_seq"],
            }
            for node_id, status in statuses.items()
            if status is not None
        },
    }


async def make(release: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        program = unpacked(release, Path(temporary) / "release")
        async with ProcessCluster(SIZE, settings=SETTINGS, program=program) as cluster:
            for node_id in cluster.nodes:
                cluster.start(node_id, **KEPT_SECRETS)
            leader = await cluster.wait_for_leader(members=SIZE)
            await fill(cluster, leader)
            expected = await described(cluster)
            await cluster.wait_until_equal()
            for node_id in sorted(cluster.nodes, key=lambda one: one == leader):
                if await cluster.stop(node_id) != 0:
                    raise RuntimeError(f"node {node_id} did not stop in order\n{cluster.logs(node_id)}")
            built = Path(temporary) / "built"
            for node_id, node in cluster.nodes.items():
                shutil.copytree(node.raft_dir, built / str(node_id), ignore=shutil.ignore_patterns("LOCK"))
        (built / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        with tarfile.open(target, "w:gz") as archive:
            for path in sorted(built.iterdir()):
                archive.add(path, path.name, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="for example 0.2.0; its wheel is there")
    release: str = parser.parse_args().release
    target = directories_of(release)
    if not wheel_of(release).exists():
        parser.error(f"{wheel_of(release)} is missing")
    if target.exists():
        parser.error(f"{target} exists; what a release wrote is never made again")
    asyncio.run(make(release, target))
    print(f"{target.stat().st_size:8} {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
