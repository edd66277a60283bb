"""A cluster with everything on: TLS on three ports, secret, token, password; all are replaced while a client writes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from metasrv.testing.processes import ProcessCluster
from tests.support.secret_procedure import documented_steps
from tests.support.secured_cluster import PASSWORD, Secured, metactl


async def write_until(done: asyncio.Event, secured: Secured) -> int:
    """Write key after key, without a second attempt; how many were written."""
    count = 0
    async with secured.client() as client:
        while not done.is_set():
            count += 1
            await client.upsert(f"key-{count}", b"value")
            await asyncio.sleep(0.01)
    return count


async def test_everything_is_on_and_everything_is_replaced_under_load(tmp_path: Path) -> None:
    async with ProcessCluster(3) as cluster:
        secured = Secured(cluster, tmp_path / "tls")
        secured.configure(raft_secret="the first secret")
        for node_id in cluster.nodes:
            cluster.start(node_id)
        await secured.ready()
        done = asyncio.Event()
        writing = asyncio.create_task(write_until(done, secured))

        # The certificate: found by itself, on three ports of each node.
        before = await asyncio.to_thread(secured.shown, cluster.nodes[1].raft)
        serial = await asyncio.to_thread(secured.certify)
        assert serial != before
        ports = [port for node in cluster.nodes.values() for port in (node.raft, node.admin, node.grpc)]
        await secured.until(lambda: all(secured.shown(port) == serial for port in ports), "the new certificate")
        assert not writing.done()

        # The secret and the token, by their documented steps, each at a SIGHUP.
        secured.token = "the second token"
        for step in documented_steps("the first secret", "the second secret"):
            counts = {node_id: secured.loads(node_id).get("raft", 0) for node_id in cluster.nodes}
            secured.configure(raft_secret=step.raft_secret, raft_accepted_secrets=list(step.raft_accepted_secrets))
            secured.hang_up()
            await secured.until(partial(secured.have_loaded_since, counts), "a step of the secret")
            assert not writing.done()
        assert all(secured.loads(node_id, "failure") == {} for node_id in cluster.nodes)

        # metactl over all of it: the old token is refused, the new one moves the leadership.
        flags = ("transfer-leader", "--wait", "30", "--admin-tls-ca-file", secured.authority, "--admin-api-address")
        moved = 0
        for node in cluster.nodes.values():
            old = await asyncio.to_thread(metactl, *flags, str(node.admin), METASRV_ADMIN_TOKEN="the first token")
            assert "status code: 401" in old.stderr
            new = await asyncio.to_thread(metactl, *flags, str(node.admin), METASRV_ADMIN_TOKEN=secured.token)
            assert "401" not in new.stderr
            moved += new.returncode == 0
        assert moved, "some node led"
        grpc = ("--grpc-api-address", str(cluster.nodes[1].grpc), "--grpc-tls-ca-file", secured.authority)
        status = await asyncio.to_thread(metactl, "status", *grpc, METASRV_GRPC_PASSWORD=PASSWORD)
        assert status.returncode == 0, status.stderr
        wrong = await asyncio.to_thread(metactl, "status", *grpc, METASRV_GRPC_PASSWORD="wrong")
        assert wrong.returncode == 1
        done.set()
        assert await writing > 100

        # Nodes that start now meet those that were never restarted: with the new certificate, and the new secret alone.
        assert await cluster.stop(3) == 0
        cluster.start(3)
        await secured.ready()
        tls = {"METASRV_RAFT_TLS_CA": secured.authority, "METASRV_RAFT_SECRET": "the second secret"}
        tls |= {"METASRV_RAFT_TLS_CERT": str(secured.directory / "operate.pem")}
        tls |= {"METASRV_RAFT_TLS_KEY": str(secured.directory / "operate-key.pem")}
        command = [
            sys.executable,
            "-m",
            "metasrv.cli.server",
            "--leave-id",
            "9",
            "--leave-via",
            str(cluster.nodes[1].raft),
        ]
        for secret, code in (("the first secret", 4), ("the second secret", 0)):
            environment = {**os.environ, **tls, "METASRV_RAFT_SECRET": secret}
            left = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, env=environment
            )
            assert left.returncode == code, left.stderr


async def test_a_certificate_that_cannot_be_used_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    async with ProcessCluster(1) as cluster:
        secured = Secured(cluster, tmp_path / "tls")
        secured.configure()
        cluster.start(1)
        await secured.ready()
        node = cluster.nodes[1]
        serial = await asyncio.to_thread(secured.shown, node.grpc)
        good = (secured.directory / "node.pem").read_bytes()
        (secured.directory / "node.pem").write_text("nothing")
        await secured.until(lambda: len(secured.loads(1, "failure")) == 3, "three ports that report it")
        (secured.directory / "node.pem").write_bytes(good)
        for port in (node.raft, node.admin, node.grpc):
            assert await asyncio.to_thread(secured.shown, port) == serial
        assert node.output().count("grpc: what the files hold now cannot be used") == 1
