"""Diagnostics of real nodes: the page's commands, two bundles at once, a caller that leaves, a full disk, a lost node."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.documents import Operator
from tests.support.metactl import metactl
from tests.support.settings import configure

FILE_SIZE_BYTES = 8192
"""Less than an archive takes."""


def names_in(archive: Path) -> set[str]:
    """The files without the outer directory."""
    with tarfile.open(archive) as files:
        return {name.partition("/")[2] for name in files.getnames()}


def text_in(archive: Path, name: str) -> str:
    with tarfile.open(archive) as files:
        (member,) = (member for member in files if member.name.endswith(f"/{name}"))
        file = files.extractfile(member)
        assert file is not None
        return file.read().decode()


@pytest.mark.long
async def test_the_pages_commands_collect_every_node_and_name_a_lost_one(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    cluster = start_cluster(3)
    configure(cluster, {"admin_key_browser": True})
    await cluster.boot()
    async with cluster.client(1) as client:
        await client.upsert("tenant/one", b"a value that stays here")
    async with Operator(cluster, "diagnose") as operator:
        printed = await operator.run(1)
        assert "the diagnostics of nodes 1, 2, 3" in printed
        assert "leads in term" in printed
        printed = await operator.run(2)
        assert "metasrv.raft logs from debug on until" in printed
        assert "metasrv.raft  debug  info" in printed
        await cluster.kill(3)
        archive = tmp_path / "bundle.tar.gz"
        ran = await metactl(*("diagnose", "--seconds", 0, "-o", archive), "--admin-api-address", cluster.nodes[1].admin)
    assert "the diagnostics of nodes 1, 2;" in ran.out
    assert "node 3: the admin API at" in ran.err
    names = names_in(archive)
    assert {"summary.md", "console.json", "node-1/threads.txt", "node-2/log.txt"} <= names
    assert not any(name.startswith("node-3/") for name in names)
    summary = text_in(archive, "summary.md")
    assert "| 3 |" in summary
    assert "- Node 3: The admin API at" in summary
    assert "tenant/one" in summary
    assert "the log level of metasrv.raft is debug for 60 s" in summary
    with tarfile.open(archive) as files:
        content = b"".join(files.extractfile(member).read() for member in files)  # type: ignore[union-attr]
    assert b"a value that stays here" not in content
    audit = [line for line in text_in(archive, "node-1/log.txt").splitlines() if "metasrv.audit" in line]
    assert any('"path": "/v1/diagnostics"' in line for line in audit)
    assert any('"method": "PUT", "path": "/v1/log-levels"' in line for line in audit)


async def begun(cluster: ProcessCluster, query: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A request for a bundle, and the first line of its answer."""
    reader, writer = await asyncio.open_connection(cluster.nodes[1].admin.addr, cluster.nodes[1].admin.port)
    writer.write(f"GET /v1/diagnostics?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer, await asyncio.wait_for(reader.readline(), 30)


@pytest.mark.long
async def test_one_bundle_at_a_time_and_one_whose_caller_leaves_ends(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    await cluster.boot()
    _, writer, line = await begun(cluster, "seconds=60")
    assert b" 200 " in line
    refused = await metactl(
        *("diagnose", "-o", tmp_path / "second.tar.gz"), "--admin-api-address", cluster.nodes[1].admin, code=1
    )
    assert "another diagnostics bundle of this node is being made" in refused.err
    assert os.listdir(tmp_path) == [], "nothing is left"
    writer.close()
    async with asyncio.timeout(30):
        while True:
            _, other, line = await begun(cluster, "seconds=0")
            other.close()
            if b" 200 " in line:
                break
            assert b" 409 " in line
            await asyncio.sleep(0.1)
    assert await cluster.stop(1) == 0


@pytest.mark.long
async def test_a_full_disk_leaves_no_half_of_an_archive(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    await cluster.boot()

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE_BYTES, FILE_SIZE_BYTES))

    def collect() -> subprocess.CompletedProcess[str]:
        arguments = ["--seconds", "0", "-o", str(tmp_path / "bundle.tar.gz")]
        arguments += ["--admin-api-address", str(cluster.nodes[1].admin)]
        return subprocess.run(
            [sys.executable, "-B", "-m", "metasrv.cli.ctl", "diagnose", *arguments],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=small_files,
            timeout=60,
        )

    done = await asyncio.to_thread(collect)
    assert done.returncode == 1, done
    assert "bundle.tar.gz could not be written: File too large" in done.stderr
    assert os.listdir(tmp_path) == []
    answer = json.loads((await cluster.admin(1, "/v1/console"))[1])
    assert answer["problems"] == []
