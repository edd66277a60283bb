"""Gateways on other machines: everything that clients do, through one, while the node that it is linked to dies."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from metasrv.model import commands as c
from metasrv.model.errors import MetasrvError
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from metasrv.testing.remote_gateway import RemoteGatewayProcess
from tests.support.secured_cluster import PASSWORD, Secured

MANY = 400
LARGE = b"v" * 40_000


def figure(page: str, name: str) -> float | None:
    """A figure of a metrics page."""
    return next((float(line.split(" ")[1]) for line in page.splitlines() if line.startswith(f"{name} ")), None)


async def until_written(client: AsyncClient, key: str, value: bytes) -> None:
    """Try until a write is acknowledged: the gateway may be between two nodes."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.upsert(key, value)
            except MetasrvError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_gateway_without_a_node_serves_everything_and_moves_to_the_next_node(tmp_path: Path) -> None:
    async with ProcessCluster(3, settings={"raft_secret": "s3cret"}) as cluster:
        await cluster.boot()
        nodes = [node.raft for node in cluster.nodes.values()]
        with RemoteGatewayProcess(tmp_path, nodes, raft={"raft_secret": "s3cret"}) as gateway:
            await gateway.wait_for("ok: ")
            async with gateway.client() as client:
                await _everything(client)
                _, page = await cluster.admin(1, "/v1/metrics")
                assert "metasrv_remote_gateways 1" in page
                _, checks = await cluster.admin(1, "/readyz?verbose")
                assert "linked gateways on other machines: 1" in checks
                _, events = await cluster.admin(1, "/v1/events")
                assert "is linked to this node" in events
                _, page = await gateway.get("/metrics")
                assert "metasrv_gateway_linked 1" in page
                assert (figure(page, 'metasrv_grpc_requests_total{kind="write"}') or 0) > MANY  # no client went elsewhere
                await cluster.kill(1)
                await gateway.wait_for("ok: this gateway is linked to node")
            async with gateway.client() as client:
                await until_written(client, "after", b"1")
                record = await client.get("after")
                assert record is not None
                assert record.data == b"1"
                assert len(await client.list_prefix("many/")) == MANY
            gateway.signal(signal.SIGTERM)
            assert gateway.process is not None
            assert await asyncio.to_thread(gateway.process.wait, 10) == 0
        _, two = await cluster.admin(2, "/v1/events")
        _, three = await cluster.admin(3, "/v1/events")
        assert "is no longer linked to this node" in two + three


async def _everything(client: AsyncClient) -> None:
    assert await client.get("k") is None
    await client.upsert("k", b"1")
    record = await client.get("k")
    assert record is not None
    assert record.data == b"1"
    seen: list[str] = []

    async def follow() -> None:
        async for event in client.watch_prefix("many/"):
            seen.append(str(event))

    watching = asyncio.create_task(follow())
    await asyncio.sleep(0.2)
    await asyncio.gather(*(client.upsert(f"many/{number:03}", b"%d" % number) for number in range(MANY)))
    for number in range(40):
        await client.upsert(f"large/{number:02}", LARGE)
    keys = [f"many/{number:03}" for number in range(MANY)]
    assert [record and record.data for record in await client.get_many(keys)] == [b"%d" % n for n in range(MANY)]
    large = await client.get_many([f"large/{number:02}" for number in range(40)])
    assert all(record is not None and record.data == LARGE for record in large)
    assert [key for key, _ in await client.list_prefix("many/")] == keys
    assert len(await client.list_prefix("large/")) == 40
    assert len(await client.list_prefix("many/", limit=7)) == 7
    assert [key for key, _ in await client.list_prefix("many/0", stale=True)] == keys[:100]
    reply = await client.branch_transaction(
        pb.KvTransactionRequest(
            branches=[pb.ConditionalOperation(operations=[pb.TxnOp(put=pb.TxnPutRequest(key="t", value=b"2"))])]
        )
    )
    assert isinstance(reply, c.BranchTransactionReply)
    lines = [line async for line in client.export()]
    assert sum('"GenericKV"' in line for line in lines) == MANY + 40 + 2
    async with asyncio.timeout(10):
        while len(seen) < MANY:  # noqa: ASYNC110 - a client's stream fills it
            await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    with pytest.raises(MetasrvError, match="ask a node"):
        [row async for row in client.keys_layout()]


async def test_a_gateway_without_the_secret_is_refused_and_says_so(tmp_path: Path) -> None:
    async with ProcessCluster(1, settings={"raft_secret": "s3cret"}) as cluster:
        await cluster.boot()
        nodes = [cluster.nodes[1].raft]
        with RemoteGatewayProcess(tmp_path, nodes, raft={"raft_secret": "another"}) as gateway:
            await gateway.wait_for("the shared secret (raft_secret) of this node and of the caller differ")
            assert (await gateway.get("/livez"))[0] == 200
            _, page = await cluster.admin(1, "/v1/metrics")
            assert "metasrv_remote_gateways 0" in page


async def test_a_gateway_proves_its_certificate_as_a_node_does(tmp_path: Path) -> None:
    async with ProcessCluster(1) as cluster:
        secured = Secured(cluster, tmp_path / "tls")
        secured.configure(raft_secret="s3cret")
        cluster.start(1)
        await secured.ready()
        files, name = secured.files_of(1)
        certificate = {"raft_tls_cert": str(files / f"{name}.pem"), "raft_tls_key": str(files / f"{name}-key.pem")}
        raft = {"raft_secret": "s3cret", "raft_tls_ca": str(files / "ca.pem"), **certificate}
        settings = {
            "grpc_password": PASSWORD,
            "grpc_tls_server_cert": certificate["raft_tls_cert"],
            "grpc_tls_server_key": certificate["raft_tls_key"],
        }
        nodes = [cluster.nodes[1].raft]
        with RemoteGatewayProcess(tmp_path / "good", nodes, settings=settings, raft=raft) as gateway:
            await gateway.wait_for("ok: ")
            options = {"tls_ca_file": secured.authority}
            async with gateway.client(password=PASSWORD, **options) as client:
                await client.upsert("k", b"1")
                record = await client.get("k")
                assert record is not None
                assert record.data == b"1"
            async with gateway.client(password="wrong", **options) as client:
                with pytest.raises(MetasrvError, match="password"):
                    await client.get("k")
        wrong = {**raft, "raft_advertise_host": "elsewhere"}
        named = {**settings, "grpc_api_advertise_host": "elsewhere"}
        with RemoteGatewayProcess(tmp_path / "bad", nodes, settings=named, raft=wrong) as gateway:
            await gateway.wait_for("elsewhere")
            assert (await gateway.get("/readyz"))[0] == 503
