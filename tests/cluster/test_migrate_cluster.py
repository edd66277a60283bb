"""`metactl migrate` between real clusters: docs/runbooks/migrate.md, under a load whose every answer is remembered."""

from __future__ import annotations

import asyncio
import json

import pytest

from metasrv.client import AsyncClient
from metasrv.model.errors import InvalidRequestError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.export_shapes import EXPIRE, RECORD, STATE, first_lines, shaped
from tests.support.metactl import metactl
from tests.support.migrating import Load, Migrating, addresses, check_equal, records, turn_on

VALUES = {
    "large": b"x" * 5000,
    "\u00e4/\n": bytes(range(256)),
    **{f"d{number % 3}/k{number}": b"v" * number for number in range(300)},
}


# ----------------------------------------------------------------------------- the way back


FIRST_LINES = first_lines(node_id=1)


async def check_way_back(cluster: ProcessCluster) -> None:
    """An export of the one node is, line by line, what upstream's offline import reads, with each record as it is."""
    theirs = {key: record for key, record in (await records(cluster)).items() if not key.startswith("load/")}
    back = cluster.directory / "back.lines"
    await metactl("export", "--grpc-api-address", cluster.nodes[1].grpc, "--db", back)
    lines = [json.loads(line) for line in back.read_text(encoding="utf-8").splitlines()]
    for line, (tree, body) in zip(lines, FIRST_LINES, strict=False):
        assert line[0] == tree
        assert shaped(line[1], body), line
    assert lines[3][1]["Committed"] == lines[6][1]["StateMachineMeta"]["value"]["LogId"]
    rest = [line[1] for line in lines[len(FIRST_LINES) :] if line[0] == STATE]
    assert len(rest) == len(lines) - len(FIRST_LINES)
    expiries = [body["Expire"] for body in rest if "Expire" in body]
    found = [body["GenericKV"] for body in rest if "GenericKV" in body]
    assert rest == [{"Expire": body} for body in expiries] + [{"GenericKV": body} for body in found]
    assert all(shaped({"Expire": body}, EXPIRE) for body in expiries)
    assert all(shaped({"GenericKV": body}, RECORD) for body in found)
    keys = [body["key"] for body in found]
    assert keys == sorted(keys)
    assert set(theirs) <= set(keys)
    for body in found:
        value, record = body["value"], theirs.get(body["key"])
        if record is not None:
            meta = {} if record.meta is None else {name: n for name, n in record.meta._asdict().items() if n is not None}
            assert (value["seq"], bytes(value["data"]), value["meta"]) == (record.seq, record.data, meta)
    assert [body["value"]["key"] for body in expiries][-2:] == ["leased", "seconds"]
    assert expiries[-1]["key"] == {"time_ms": 90_000_000_000_000, "seq": theirs["seconds"].seq}, "in milliseconds"
    numbers = [body["value"]["seq"] for body in found]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) <= lines[5][1]["Sequences"]["value"]


# ----------------------------------------------------------------------------- the tests


async def test_a_cluster_moves_while_it_serves_and_its_leader_is_killed(
    start_cluster: StartCluster, cluster: ProcessCluster
) -> None:
    target: ProcessCluster = start_cluster(1)
    await target.boot()
    async with cluster.client() as client:
        for key, value in VALUES.items():
            await client.upsert(key, value)
        await client.upsert("leased", b"later", ttl_ms=3_600_000)
        await client.upsert("seconds", b"far away", expire_at_ms=90_000_000_000)
    between = ("--from", addresses(cluster), "--to", addresses(target))
    refused = await metactl("migrate", *between, code=1)
    assert "metactl set-feature --feature migration --enable true" in refused.err
    await turn_on(target)
    load = Load(cluster, 60)
    load.start()
    with Migrating(cluster.directory, *between) as following:
        await following.wait_for_note("level: ")
        with pytest.raises(InvalidRequestError, match=r"takes the records of cluster .* and no other writes"):
            async with target.client() as client:
                await client.upsert("a", b"")
        leader = await cluster.wait_for_leader()
        await cluster.kill(leader)
        await asyncio.sleep(1.5)
        cluster.start(leader)
        await following.interrupt()
    assert "Traceback" not in following.notes
    with Migrating(cluster.directory, *between, "--cut-over", "--quiet-seconds", 1) as cutting:
        await cutting.wait_for_note("level: stop the writers of the source now")
        assert "going on with a migration: the target has" in cutting.notes
        await load.stop()
        printed = await cutting.output()
    assert "keys, compared one by one" in printed
    assert f"let clients use {next(iter(target.nodes.values())).grpc}" in printed
    await check_equal(cluster, target, load)
    await check_way_back(target)


@pytest.mark.long
async def test_many_keys_move_to_three_nodes_under_load(start_cluster: StartCluster, cluster: ProcessCluster) -> None:
    target: ProcessCluster = start_cluster(3)
    await target.boot()
    await turn_on(target)
    clients = [AsyncClient([str(node.grpc)]) for node in cluster.nodes.values() for _ in range(8)]

    async def fill(number: int, client: AsyncClient) -> None:
        async with client:
            for key in range(number, 20_000, len(clients)):
                await client.upsert(f"many/{key}", b"v" * (key % 700))

    await asyncio.gather(*(fill(number, client) for number, client in enumerate(clients)))
    load = Load(cluster, 500)
    load.start(8)
    between = ("--from", addresses(cluster), "--to", addresses(target))
    with Migrating(cluster.directory, *between, "--cut-over", "--quiet-seconds", 1) as cutting:
        await asyncio.sleep(2)
        leader = await cluster.wait_for_leader()
        await cluster.kill(leader)
        await asyncio.sleep(1)
        cluster.start(leader)
        await target.kill(await target.wait_for_leader())
        await cutting.wait_for_note("level: stop the writers of the source now")
        await load.stop()
        assert "keys, compared one by one" in await cutting.output()
    await check_equal(cluster, target, load)
    for node_id in target.running():
        async with target.client(node_id) as client:
            assert len(await client.list_prefix("", stale=True)) > 20_000
