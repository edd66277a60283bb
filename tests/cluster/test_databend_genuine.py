"""metactl and a migration with a genuine meta service of Databend as the other side.

The service is the one within Databend's engine (`tests/support/genuine_meta.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.export_shapes import EXPIRE, RECORD, STATE, first_lines, shaped
from tests.support.genuine_meta import GenuineMeta, needs_genuine_meta
from tests.support.metactl import metactl
from tests.support.migrating import Load, Migrating, check_equal, turn_on

pytestmark = [needs_genuine_meta, pytest.mark.slow]

CATALOG = (
    "CREATE DATABASE moved",
    "CREATE TABLE moved.t(a INT, b STRING)",
    "CREATE TABLE moved.u(c INT)",
    "CREATE USER somebody IDENTIFIED BY 'secret'",
)
SNAPSHOT_WRITES = 1_100
"""More than the service has between two snapshots of itself."""


@pytest.fixture
def genuine(tmp_path: Path) -> Iterator[GenuineMeta]:
    with GenuineMeta(tmp_path / "databend", *CATALOG) as started:
        yield started


@pytest.mark.timeout(240)
async def test_its_catalog_moves_here_while_it_is_written_to(genuine: GenuineMeta, start_cluster: StartCluster) -> None:
    await genuine.choose_the_fullest()
    target: ProcessCluster = start_cluster(1)
    await target.boot()
    await turn_on(target)
    async with genuine.client() as client:
        catalog = dict(await client.list_prefix(""))
        assert any("moved" in key for key in catalog), sorted(catalog)
        await client.upsert("leased", b"later", ttl_ms=3_600_000)
        await client.upsert("seconds", b"far away", expire_at_ms=90_000_000_000)
        for number in range(300):
            await client.upsert(f"d{number % 3}/k{number}", b"v" * number)
    load = Load(genuine, 60)
    load.start()
    between = ("--from", genuine.address, "--to", target.nodes[1].grpc)
    with Migrating(target.directory, *between, "--cut-over", "--quiet-seconds", 1) as cutting:
        await cutting.wait_for_note("level: stop the writers of the source now")
        await asyncio.sleep(1)
        await load.stop()
        assert "keys, compared one by one" in await cutting.output()
    await check_equal(genuine, target, load)
    async with target.client() as client:
        found = dict(await client.list_prefix(""))
    assert {key: found.get(key) for key in catalog} == catalog


@pytest.mark.timeout(240)
async def test_an_export_of_metasrv_has_the_lines_of_its_exports(
    genuine: GenuineMeta, start_cluster: StartCluster
) -> None:
    """Both have the same kinds of lines in the same order, and each line the members that upstream's import reads."""
    await genuine.choose_the_fullest()
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    for client in (genuine.client(), cluster.client()):
        async with client:
            await client.upsert("leased", b"later", ttl_ms=3_600_000)
            for first in range(0, SNAPSHOT_WRITES, 50):
                await asyncio.gather(*(client.upsert(f"k/{number}", b"v") for number in range(first, first + 50)))
    theirs = await exported(genuine.address, cluster.directory / "theirs")
    ours = await exported(cluster.nodes[1].grpc, cluster.directory / "ours")
    assert kinds(theirs) == kinds(ours)
    check_shapes(theirs, node_id=0)
    check_shapes(ours, node_id=1)


async def exported(address: object, path: Path) -> list[Any]:
    """The lines of an export, but for entries of the log, which a snapshot does not have."""
    await metactl("export", "--grpc-api-address", address, "--db", path)
    lines = [json.loads(line) for line in (await asyncio.to_thread(path.read_text, "utf-8")).splitlines()]
    return [line for line in lines if "LogEntry" not in line[1]]


def kinds(lines: list[Any]) -> list[tuple[str, str]]:
    """Tree and kind of each line, once for those that follow each other."""
    found: list[tuple[str, str]] = []
    for tree, body in lines:
        kind = tree, next(iter(body))
        if kind not in found[-1:]:
            found.append(kind)
    return found


def check_shapes(lines: list[Any], node_id: int) -> None:
    expected = first_lines(node_id)
    for (tree, body), (wanted_tree, wanted) in zip(lines, expected, strict=False):
        assert tree == wanted_tree
        assert shaped(body, wanted), body
    for tree, body in lines[len(expected) :]:
        assert tree == STATE
        assert shaped(body, EXPIRE) or shaped(body, RECORD), body


async def test_metactl_speaks_with_it(genuine: GenuineMeta) -> None:
    await genuine.choose_the_fullest()
    grpc = ("--grpc-api-address", genuine.address)
    assert "DataVersion: V004" in (await metactl("status", *grpc)).out
    await metactl("upsert", "--key", "a/b", "--value", "hello", *grpc)
    assert json.loads((await metactl("get", "--key", "a/b", *grpc)).out)["data"] == list(b"hello")
