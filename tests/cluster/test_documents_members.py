"""The pages for operators, carried out: members that come and go, a cluster that moves, contexts of metactl.

As in `test_documents.py`, what a page asks for in words the test does between the blocks.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from metasrv.model.errors import InvalidRequestError, WriteRefusedError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.documented_data import check, fill, lead
from tests.support.documents import Operator
from tests.support.metactl import metactl
from tests.support.paths import ROOT

NEW_DIRECTORY = "/var/lib/metasrv"


def install(cluster: ProcessCluster, machine: int, file: Path) -> None:
    """Copy a configuration that metactl wrote to a machine, which shares its address with others here."""
    node, text = cluster.nodes[machine], file.read_text()
    for key, address in (("admin_api_address", node.admin), ("grpc_api_address", node.grpc)):
        text, count = re.subn(rf"^{key} = .*$", f'{key} = "{address}"', text, flags=re.MULTILINE)
        assert count == 1, text
    node.directory.mkdir(exist_ok=True)
    node.config_file.write_text(text)


def data_of(cluster: ProcessCluster, machine: int) -> tuple[str, str]:
    """The page's directory of data, and that of a machine."""
    return NEW_DIRECTORY, str(cluster.nodes[machine].raft_dir)


async def members(cluster: ProcessCluster, node_id: int) -> dict[int, str]:
    """Role of each member, as a node says."""
    ran = await metactl("member", "list", "--admin-api-address", cluster.nodes[node_id].admin, "-o", "jsonl")
    return {row["id"]: row["role"] for row in map(json.loads, ran.out.splitlines())}


@pytest.mark.long
async def test_members_are_added_promoted_removed_and_replaced(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await lead(cluster, 1)
    cluster.add_node()
    async with Operator(cluster, "members") as operator:
        printed = await operator.run(1, 1, data_of(cluster, 4))
        assert "3 of 3 voters answer, 2 are needed: one more failure is tolerated" in printed
        assert "node 4 becomes a member when it starts" in printed
        install(cluster, 4, operator.root / "node4.toml")
        await operator.run(2, 4)
        assert (await members(cluster, 1))[4] == "learner"

        printed = await operator.run(3, 1)
        assert "node 4 votes from now on" in printed
        assert "node 3 is no longer a member" in printed
        file = cluster.nodes[4].config_file
        assert "learner = true\n" in file.read_text()
        file.write_text(file.read_text().replace("learner = true\n", ""))
        await cluster.stop(3)
        cluster.forget(3)
        await cluster.restart(4)
        await cluster.wait_for_ready(4)

        await lead(cluster, 1)
        await cluster.kill(2)
        cluster.wipe(2)
        assert "node 2 is no longer a member" in await operator.run(4, 1, data_of(cluster, 2))
        install(cluster, 2, operator.root / "node2.toml")
        await operator.run(2, 2)
    await cluster.wait_for_leader(members=3)
    assert await members(cluster, 2) == {1: "leader", 2: "voter", 4: "voter"}
    await check(cluster, 2, 4)


@pytest.mark.long
async def test_a_node_is_lost_for_good_and_comes_back_later(cluster: ProcessCluster) -> None:
    await fill(cluster)
    await lead(cluster, 1)
    cluster.add_node()  # the new machine
    await cluster.kill(3)
    async with Operator(cluster, "lost-for-good") as operator:
        assert "2 of 3 voters answer" in await operator.run(1)
        assert "node 3 is no longer a member" in await operator.run(2, 1, data_of(cluster, 4))
        install(cluster, 4, operator.root / "node3.toml")
        await operator.run(3, 4)
        await cluster.wait_for_leader(members=3)
        await operator.run(4)
    await check(cluster, 4)
    cluster.start(3)
    assert await cluster.wait_exit(3) == 10


# ----------------------------------------------------------------------------- a cluster that moves


class Writer:
    """Writes to a cluster until it is stopped."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self.acknowledged = 0
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        async with self._cluster.client() as client:
            while True:
                await client.upsert("written/meanwhile", b"%d" % (self.acknowledged + 1))
                self.acknowledged += 1
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._task.cancel()
        ended = (await asyncio.gather(self._task, return_exceptions=True))[0]
        assert isinstance(ended, asyncio.CancelledError), ended


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_cluster_moves_and_its_records_go_back(start_cluster: StartCluster, cluster: ProcessCluster) -> None:
    target: ProcessCluster = start_cluster(3)
    await target.boot()
    await fill(cluster)
    writer = Writer(cluster)
    async with Operator(cluster, "migrate", target=target) as operator:
        await operator.run(1)
        following = await operator.begin(2)
        await following.wait_for("level: ")
        with pytest.raises(InvalidRequestError, match="and no other writes"):
            async with target.client() as client:
                await client.upsert("a", b"")
        await following.interrupt()
        assert "keys that were copied are deleted" in await operator.run(4)
        following = await operator.begin(2)
        await following.wait_for("level: ")
        await following.interrupt()

        cutting = await operator.begin(3)
        await cutting.wait_for("level: stop the writers of the source now")
        await writer.stop()
        printed = await cutting.end()
    assert "equal: 30 keys, compared one by one" in printed
    assert f"let clients use {', '.join(str(node.grpc) for node in target.nodes.values())}" in printed
    await check(target)
    async with target.client() as client:
        record = await client.get("written/meanwhile")
        assert record is not None
        assert int(record.data) >= writer.acknowledged
        await client.upsert("after/the move", b"")
        await client.delete("after/the move")

    async with Operator(cluster, "migrate-back", target=target) as operator:
        printed = await operator.run(1)
        assert "Keys: 30" in printed
        numbers = re.findall(r"^LastSeq: (\d+)$", printed, re.MULTILINE)
        assert len(numbers) == 3
        assert len(set(numbers)) == 1
        export = operator.backup / "back.lines"
    await import_into_an_empty_cluster(start_cluster(1), export)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_cluster_is_made_read_only_to_move(start_cluster: StartCluster, cluster: ProcessCluster) -> None:
    target: ProcessCluster = start_cluster(3)
    await target.boot()
    await fill(cluster)
    async with Operator(cluster, "migrate-read-only", target=target) as operator:
        await operator.run(1)
        await operator.run(2)
        printed = await operator.run(3)
        assert "level: the source refuses writes now" in printed
        assert "equal: 29 keys, compared one by one" in printed
        await check(target)
        with pytest.raises(WriteRefusedError, match="the cluster is read-only"):
            async with cluster.client() as client:
                await client.upsert("a", b"")
        assert "the cluster takes writes" in await operator.run(4)
    async with cluster.client() as client:
        await client.upsert("a", b"")


async def import_into_an_empty_cluster(cluster: ProcessCluster, export: Path) -> None:
    """As the other cluster's nodes are made, with the tool that is here."""
    node = cluster.nodes[1]
    await metactl(
        *("import", "--raft-dir", node.raft_dir, "--id", 1, "--db", export, "--initial-cluster", f"1={node.raft}")
    )
    await cluster.boot()
    await check(cluster)


# ----------------------------------------------------------------------------- contexts


async def test_contexts_stand_for_addresses(start_cluster: StartCluster) -> None:
    """Two clusters of one node: `prod` with TLS and a token at 10.0.0.1, `test` at the machine of node 2."""
    cluster: ProcessCluster = start_cluster(3)  # the last is only named
    settings = cluster.nodes[2].settings
    settings["single"] = True
    del settings["join"]
    cluster.nodes[2].write_config()
    cluster.start(2)
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    found = re.search(r"^### Contexts of metactl\n.*?^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    async with Operator(cluster, "contexts") as operator:
        home = operator.root / "home"
        folder = home / ".config"
        await metactl("cert", "generate", folder, "--node", "meta-1=127.0.0.1")
        (folder / "ca.pem").rename(folder / "prod-ca.pem")
        (folder / "metactl-prod.token").write_text("the-token-of-operators\n")
        (folder / "metactl-prod.token").chmod(0o600)
        keys = {
            "admin_tls_server_cert": str(folder / "meta-1.pem"),
            "admin_tls_server_key": str(folder / "meta-1-key.pem"),
            "admin_token": "the-token-of-operators",
        }
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        file = cluster.nodes[1].config_file
        file.write_text(lines + file.read_text())
        cluster.start(1)
        await cluster.wait_until(lambda: "Metasrv started" in cluster.nodes[1].output(), "node 1 to be up")
        await cluster.wait_for_ready(2)
        (folder / "metactl.toml").write_text(operator.placed(found[1], 2))
        operator.variables = {"HOME": str(home), "METACTL_CONFIG": "", "XDG_CONFIG_HOME": ""}
        printed = await operator.run(1, 2)
    assert "context test is used from now on" in printed
    assert re.search(r"^\* +prod ", printed, re.MULTILINE)
    assert "token_file: metactl-prod.token" in printed
    assert re.search(r"^1 +leader +yes", printed, re.MULTILINE), "of prod"
    assert re.search(r"^2 +leader +yes", printed, re.MULTILINE), "of test"
    assert "the-token-of-operators" not in printed
