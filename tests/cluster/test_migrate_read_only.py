"""`metactl migrate --cut-over --from-read-only` between real clusters, whose writers never stop by themselves."""

from __future__ import annotations

import asyncio
import signal

import pytest

from metasrv.model.errors import WriteRefusedError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.metactl import metactl
from tests.support.migrating import Load, Migrating, addresses, check_equal, turn_on
from tests.support.waiting import until

KEYS = 3_000
HELD = "level: the source refuses writes now"
AGAIN = "the source takes writes again"


def admins(cluster: ProcessCluster) -> str:
    return ",".join(str(node.admin) for node in cluster.nodes.values())


async def reason(cluster: ProcessCluster) -> str | None:
    """Why the cluster takes no writes, by the node that leads it."""
    status = await cluster.status(await cluster.wait_for_leader())
    assert status is not None
    return None if status["read_only"] is None else str(status["read_only"]["reason"])


async def goes_on(load: Load) -> None:
    """Wait until writes are acknowledged again."""
    before = load.writes
    await until(lambda: load.writes >= before + 20, 20.0)


async def fill(cluster: ProcessCluster) -> None:
    async with cluster.client() as client:
        for first in range(0, KEYS, 100):
            await asyncio.gather(*(client.upsert(f"many/{key}", b"v" * (key % 700)) for key in range(first, first + 100)))


async def allow(cluster: ProcessCluster) -> None:
    admin = cluster.nodes[1].admin
    await metactl("set-feature", "--feature", "write-limits", "--enable", "true", "--admin-api-address", admin)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_source_is_read_only_for_the_cut_over_alone(
    start_cluster: StartCluster, cluster: ProcessCluster
) -> None:
    """Ended by SIGTERM, killed, and cut over while the target's leader is killed, one after the other."""
    target: ProcessCluster = start_cluster(3)
    await target.boot()
    await turn_on(target)
    await fill(cluster)
    cut_over = ("--from", addresses(cluster), "--to", addresses(target), "--cut-over", "--from-read-only")
    command = (*cut_over, "--from-admin-api-address", admins(cluster))
    refused = await metactl("migrate", *command, code=1)
    assert "the source cannot be made read-only: its feature write-limits is off" in refused.err
    await allow(cluster)
    refused = await metactl("migrate", *cut_over, "--from-admin-api-address", admins(target), code=1)
    assert "--from-admin-api-address leads to cluster" in refused.err
    load = Load(cluster, 200)
    load.start()

    with Migrating(cluster.directory, *command) as given_up:
        await given_up.wait_for_note(HELD)
        assert await given_up.interrupt(signal.SIGTERM) == 130
        assert given_up.notes.count(AGAIN) == 1
        assert "Traceback" not in given_up.notes
    assert await reason(cluster) is None
    await goes_on(load)

    with Migrating(cluster.directory, *command) as killed:
        await killed.wait_for_note(HELD)
        assert await killed.interrupt(signal.SIGKILL) == -signal.SIGKILL
    assert "metactl migrate moves this cluster to" in str(await reason(cluster))
    refused_before = load.refused

    with Migrating(cluster.directory, *command) as cutting:
        await cutting.wait_for_note(f"an earlier run had left the source read-only; {AGAIN}")
        await goes_on(load)
        await cutting.wait_for_note(HELD)
        await target.kill(await target.wait_for_leader())
        printed = await cutting.output()
        assert "Traceback" not in cutting.notes
    assert "keys, compared one by one" in printed
    assert f"metactl cluster read-only off --admin-api-address {admins(cluster)}" in printed
    assert "metactl migrate moves this cluster to" in str(await reason(cluster))
    await asyncio.sleep(0.5)
    assert load.refused > refused_before
    await load.stop()
    await check_equal(cluster, target, load)
    with pytest.raises(WriteRefusedError, match="the cluster is read-only"):
        async with cluster.client() as client:
            await client.upsert("late", b"")
    await metactl("cluster", "read-only", "off", "--admin-api-address", admins(cluster))
    async with cluster.client() as client:
        await client.upsert("late", b"")
