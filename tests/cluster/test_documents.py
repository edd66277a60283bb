"""The pages for operators, carried out: each block of commands, at the machines of real nodes (`support/documents.py`).

What a page asks for in words (edit `join`, look at another node) the test does between the blocks.
"""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import grpc
import pytest

from metasrv.testing.ports import PortReservation
from metasrv.testing.processes import ProcessCluster
from tests.cluster.conftest import mounted
from tests.conftest import StartCluster
from tests.support.documented_data import check, fill, lead
from tests.support.documents import Operator
from tests.support.secret_procedure import documented_steps
from tests.support.settings import configure


async def status_of(cluster: ProcessCluster, node_id: int) -> dict[str, Any]:
    status = await cluster.status(node_id)
    assert status is not None
    return status


def join_through(cluster: ProcessCluster, node_id: int, *others: int) -> None:
    """Put the addresses of others into `join`, as the pages say."""
    node = cluster.nodes[node_id]
    node.settings.pop("single", None)
    node.settings["join"] = [str(cluster.nodes[other].raft) for other in others]
    node.write_config()


# ----------------------------------------------------------------------------- backups


async def test_backup_and_restore_of_one_node(start_cluster: StartCluster) -> None:
    """From nothing to a cluster that was backed up, destroyed and restored."""
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    await fill(cluster)
    async with Operator(cluster, "save") as operator:
        assert "confirmed: yes, by a quorum" in await operator.run(1)
    assert await cluster.stop(1) == 0
    async with Operator(cluster, "found-directory") as operator:
        assert "Keys: 29" in await operator.run(1)
    cluster.wipe(1)
    async with Operator(cluster, "restore-one") as operator:
        assert "confirmed" in await operator.run(1)
        await operator.run(2)
        assert "Voters:" in await operator.run(3)
    await check(cluster)


@pytest.mark.long
async def test_restore_of_all_nodes_at_once(cluster: ProcessCluster) -> None:
    await fill(cluster)
    async with Operator(cluster, "save") as operator:
        await operator.run(1)
    for node_id in cluster.nodes:
        await cluster.stop(node_id)
        cluster.wipe(node_id)
    async with Operator(cluster, "restore-all") as operator:
        for node_id in cluster.nodes:
            await operator.run(1, node_id)
            await operator.run(2, node_id, ("--id 2", f"--id {node_id}"))
            cluster.start(node_id)
        await cluster.wait_for_ready()
        for node_id in cluster.nodes:
            assert "Voters:" in await operator.run(3, node_id)
    await check(cluster)


@pytest.mark.long
async def test_scheduled_backups(cluster: ProcessCluster) -> None:
    async with Operator(cluster, "backup") as operator:
        await operator.run(1)
        backup = {
            "every_seconds": 3600,
            "keep": 24,
            "directory": str(operator.backup / "metasrv"),
            "encrypt_with": str(operator.etc / "backup.key"),
        }
        configure(cluster, {}, "backup", backup)
        for node_id in cluster.nodes:
            await cluster.restart(node_id)
        await fill(cluster)
        await lead(cluster, 1)
        printed = await operator.run(2)
    assert "written and checked in" in printed
    assert "Encrypted: yes" in printed
    assert "Keys: 29" in printed


# ----------------------------------------------------------------------------- nodes that come and go


@pytest.mark.long
async def test_no_leader_and_a_lost_majority(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await cluster.kill(2, 3)
    await cluster.wait_for_statuses(lambda found: not found[1]["has_quorum"], "node 1 to be without a quorum")
    async with Operator(cluster, "no-leader") as operator:
        status = json.loads(await operator.run(1))
    assert len(status["voters"]) == 3
    assert status["state"] != "Leader"
    for node_id in (2, 3):
        cluster.wipe(node_id)
    async with Operator(cluster, "lost-majority") as operator:
        assert "sound" in await operator.run(1)
        assert "carries the plan out" in await operator.run(2)
        assert "done: the old data is in" in await operator.run(3)
        await operator.run(4)
        await check(cluster, 1)
        async with Operator(cluster, "lost-majority-others") as others:
            for node_id in (2, 3):
                cluster.nodes[node_id].raft_dir.mkdir()
                join_through(cluster, node_id, 1)
                await others.run(1, node_id)
        await cluster.wait_for_leader(members=3)
        assert "confirmed: yes" in await operator.run(5)
    await check(cluster)


@pytest.mark.long
async def test_a_node_is_removed_and_comes_back(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await lead(cluster, 1)
    async with Operator(cluster, "leave") as operator:
        assert "node 3 left the cluster" in await operator.run(1)
    await cluster.wait_for_statuses(lambda found: found[3]["removed"] is not None, "node 3 to learn that it is out")
    join_through(cluster, 3, 1, 2)
    async with Operator(cluster, "removed-by-mistake") as operator:
        await operator.run(1, 3)
    await cluster.wait_for_leader(members=3)
    await check(cluster, 3)


@pytest.mark.long
async def test_a_node_that_does_not_start_is_replaced(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await lead(cluster, 1)
    await cluster.kill(3)
    state = cluster.nodes[3].raft_dir / "df_meta/V004/state/state.db"
    state.write_bytes(bytes(len(state.read_bytes())))
    cluster.start(3)
    assert await cluster.wait_exit(3) == 6
    join_through(cluster, 3, 1, 2)
    async with Operator(cluster, "lost-node") as operator:
        assert "state: DAMAGED" in await operator.run(1, 3)
        await operator.run(2, 1)
        await operator.run(3, 3)
    await cluster.wait_for_leader(members=3)
    await check(cluster, 3)


@pytest.mark.long
async def test_a_damaged_copy_is_rebuilt(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await lead(cluster, 1)
    join_through(cluster, 3, 1, 2)
    async with Operator(cluster, "damaged-copy") as operator:
        await operator.run(1, 3)
    assert any(cluster.nodes[3].raft_dir.glob("aside-*"))
    await cluster.wait_for_leader(members=3)
    await check(cluster, 3)


def raft_ports(status: dict[str, Any]) -> set[int]:
    return {voter["endpoint"]["port"] for voter in status["voters"]}


@pytest.mark.long
async def test_a_node_moves_to_another_address(cluster: ProcessCluster) -> None:
    await fill(cluster)
    ports = PortReservation()
    try:
        async with Operator(cluster, "address-change") as operator:
            operator.new_port = ports.take()
            await operator.run(1, 2)
        statuses = await cluster.wait_for_statuses(
            lambda found: all(operator.new_port in raft_ports(status) for status in found.values()), "all to know it"
        )
        assert all(len(raft_ports(status)) == 3 for status in statuses.values())
        await check(cluster, 2)
    finally:
        ports.release()


@pytest.mark.long
async def test_a_rolling_restart_and_an_upgrade_step(cluster: ProcessCluster) -> None:
    await fill(cluster)
    async with Operator(cluster, "rolling-restart") as operator, Operator(cluster, "upgrade") as upgrade:
        for node_id in cluster.nodes:
            await operator.run(1, node_id)
            assert "data-version: V004" in await upgrade.run(1, node_id)
            await cluster.wait_for_leader(members=3)
    await check(cluster)


# ----------------------------------------------------------------------------- disks


@pytest.mark.long
@pytest.mark.root
async def test_a_full_disk(start_cluster: StartCluster, small_disk: tuple[list[str], list[str]]) -> None:
    enter, mount = small_disk
    cluster: ProcessCluster = start_cluster(1)
    node = cluster.nodes[1]
    node.raft_dir.mkdir()
    if not mounted([*mount, "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(node.raft_dir)]):
        pytest.skip("a tmpfs cannot be mounted here")
    cluster.start(1, wrapper=enter)
    await cluster.wait_for_leader()
    acknowledged: list[str] = []
    async with cluster.node_client(1) as client:
        for number in range(2000):
            try:
                await client.put(f"k/{number:04}", b"v" * 10_000)
            except grpc.aio.AioRpcError:
                break
            acknowledged.append(f"k/{number:04}")
            if number == 100:
                await cluster.admin(1, "/v1/ctrl/trigger_snapshot")
    assert await cluster.wait_exit(1) == 8
    async with Operator(cluster, "disk-full", enter) as operator:
        printed = await operator.run(1)
        assert ".snap" in printed
        await operator.run(2)
        mounted([*mount, "-o", "remount,size=96m", str(node.raft_dir)])  # readiness wants 64 MiB
        await operator.run(3)
    async with cluster.node_client(1) as client:
        assert set(await client.list_prefix("k/")) >= set(acknowledged)


# ----------------------------------------------------------------------------- secrets, certificates, users


@pytest.mark.long
async def test_certificates_are_made_and_renewed(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    async with Operator(cluster, "certificates") as operator:
        await operator.run(1)
        folder = operator.etc / "tls"
        files = {
            "grpc_tls_server_cert": str(folder / "meta-1.pem"),
            "grpc_tls_server_key": str(folder / "meta-1-key.pem"),
        }
        configure(cluster, files)
        await cluster.boot()
        before = (folder / "meta-1.pem").read_bytes()
        async with Operator(cluster, "expiring-certificate") as renewing:
            assert "TLS Web Server Authentication" in await renewing.run(1)
            await renewing.run(2)
        assert (folder / "meta-1.pem").read_bytes() != before
        cluster.send_signal(1, signal.SIGHUP)
        await dialled(cluster, (folder / "ca.pem").read_bytes())


async def dialled(cluster: ProcessCluster, authorities: bytes) -> None:
    """Until a client that trusts these authorities has a connection to the gRPC port."""
    credentials = grpc.ssl_channel_credentials(authorities)
    options = (("grpc.ssl_target_name_override", "meta-1.example.com"),)
    async with grpc.aio.secure_channel(str(cluster.nodes[1].grpc), credentials, options) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_raft_secret_is_adopted_without_a_stop(cluster: ProcessCluster) -> None:
    await fill(cluster)
    async with Operator(cluster, "secret") as operator:
        await operator.run(1)
        secret = (operator.etc / "raft-secret").read_text().strip()
    assert len(secret) == 64
    for step in documented_steps(None, secret):
        for node_id, node in cluster.nodes.items():
            node.settings["raft_accepted_secrets"] = list(step.raft_accepted_secrets)
            if step.raft_secret is not None:
                node.settings["raft_secret"] = step.raft_secret
            node.write_config()
            cluster.send_signal(node_id, signal.SIGHUP)
            await cluster.wait_for_ready()
        await check(cluster)
    for node_id in cluster.nodes:
        await cluster.restart(node_id)
    await check(cluster)


@pytest.mark.long
async def test_a_script_reads_and_writes(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    async with Operator(cluster, "lua") as operator:
        assert "hello" in await operator.run(1)


async def test_users_have_rights(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(1)
    configure(cluster, {"grpc_password": "the password of root", "admin_token": "the token of operators"})
    await cluster.boot()
    async with Operator(cluster, "users") as operator:
        operator.variables["METASRV_ADMIN_TOKEN"] = "the token of operators"
        (operator.etc / "app-password").write_text("the password of app\n")
        assert (await operator.run(1)).rstrip().endswith("null")
