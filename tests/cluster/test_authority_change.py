"""Another certificate authority under a checked load, command by command as docs/runbooks/certificates.md has it."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from metasrv.client import AsyncClient
from metasrv.model.types import Endpoint
from metasrv.testing.processes import ProcessCluster
from tests.support.paths import ROOT
from tests.support.secured_cluster import HOST, PASSWORD, Secured, connected, metactl
from verification.attack.checked_load import Outcome, write_and_check

WRITERS = 3
FRESH_PAUSE_SECONDS = 0.2
OPERATIONS = 50
"""So many writes with the read after each are the least of a load."""


def documented_steps() -> list[list[str]]:
    """The commands of each step."""
    page = (ROOT / "docs/runbooks/certificates.md").read_text(encoding="utf-8")
    steps = page.partition("## Another authority")[2].split("**Step ")[1:]
    assert [step[0] for step in steps] == ["1", "2", "3"]
    blocks = [re.findall(r"^```sh\n(.*?)^```$", step, re.MULTILINE | re.DOTALL) for step in steps]
    return [[line for block in step for line in block.splitlines()] for step in blocks]


class Spread(Secured):
    """Nodes that each have copies of their files, as on machines of their own."""

    def files_of(self, node_id: int) -> tuple[Path, str]:
        return self.cluster.nodes[node_id].directory / "tls", f"node{node_id}"

    @property
    def flags(self) -> list[str]:
        """Names and hosts of all nodes, for `metactl cert generate`."""
        return [text for i in self.cluster.nodes for text in ("--node", f"node{i}={HOST},localhost")]

    def certify(self) -> int:
        self.run("metactl cert generate DIR --node NAME=HOST")
        for node_id in self.cluster.nodes:
            self.copy(node_id, ("ca.pem", "NAME.pem", "NAME-key.pem"))
        return 0

    def copy(self, node_id: int, names: Iterator[str] | tuple[str, ...]) -> None:
        target, own = self.files_of(node_id)
        target.mkdir(exist_ok=True, parents=True)
        for name in names:
            found = name.replace("NAME", own)
            shutil.copy(self.directory / found, target / f"{found}.new")
            os.replace(target / f"{found}.new", target / found)

    def run(self, command: str) -> None:
        """Run one of the commands that are for the machine where the authority is."""
        program, *arguments = shlex.split(command.replace("DIR", str(self.directory)))
        if program == "metactl":
            at = arguments.index("--node") if "--node" in arguments else len(arguments)
            arguments[at:] = self.flags if "--node" in arguments else []
            done = metactl(*arguments)
        else:
            done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    async def carry_out(self, step: list[str]) -> None:
        """One step of the page, on one node after the other."""
        for command in step:
            if not command.startswith("scp "):
                await asyncio.to_thread(self.run, command)
                continue
            sources = [source.removeprefix("DIR/") for source in command.split()[1:-1]]
            for node_id in self.cluster.nodes:
                loads = self.loads(node_id).get("raft", 0)
                await asyncio.to_thread(self.copy, node_id, tuple(sources))
                self.cluster.send_signal(node_id, signal.SIGHUP)
                await self.until(partial(self.have_loaded_since, {node_id: loads}), f"files of {node_id}")
                assert await asyncio.to_thread(self.refusals) == [], "whoever dials anew is let in at every moment"

    def refusals(self) -> list[str]:
        """Which nodes could not connect to which others, if they dialled now."""
        found = []
        for dialling in self.cluster.nodes:
            files, name = self.files_of(dialling)
            for dialled in self.cluster.nodes:
                port = self.cluster.nodes[dialled].raft
                refused = shakes_hands(port, files / "ca.pem", files / f"{name}.pem", files / f"{name}-key.pem")
                if refused:
                    found.append(f"node {dialling} to node {dialled}: {refused}")
        return found

    def have_loaded_since(self, counts: dict[int, int]) -> bool:
        return all(self.loads(node_id).get("raft", 0) > count for node_id, count in counts.items())


def shakes_hands(port: Endpoint, authority: Path, certificate: Path, key: Path) -> str:
    """Why a TLS handshake with both certificates fails; empty when it does not."""
    context = ssl.create_default_context(cafile=str(authority))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the client learns in its handshake how it ended
    context.load_cert_chain(certificate, key)
    try:
        with context.wrap_socket(connected(port), server_hostname=HOST):
            return ""
    except OSError as error:
        return str(error)


class Load:
    """A checked load on connections that stay, and calls on a new connection each; trusts what it began with."""

    def __init__(self, spread: Spread, number: int) -> None:
        self.outcome = Outcome()
        endpoints = [str(node.grpc) for node in spread.cluster.nodes.values()]
        trusted = spread.directory / f"trusted-{number}.pem"
        shutil.copy(spread.directory / "ca.pem", trusted)
        self._client = partial(AsyncClient, endpoints, password=PASSWORD, tls_ca_file=str(trusted))
        self._tasks = [asyncio.create_task(self._stay(number)), asyncio.create_task(self._come_anew(number))]

    async def _stay(self, number: int) -> None:
        async with self._client() as client:
            await asyncio.gather(
                *(write_and_check(client, number * WRITERS + writer, self.outcome) for writer in range(WRITERS))
            )

    async def _come_anew(self, number: int) -> None:
        while True:
            async with self._client() as client:
                await client.upsert(f"fresh/{number}", b"value")
            await asyncio.sleep(FRESH_PAUSE_SECONDS)

    async def end(self) -> None:
        """Stop it once it has done something; nothing may have failed."""
        async with asyncio.timeout(30):
            while self.outcome.operations < OPERATIONS:  # noqa: ASYNC110 - the load tells nobody
                await asyncio.sleep(0.05)
        for task in self._tasks:
            assert not task.done(), task
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert (self.outcome.wrong, self.outcome.errors) == ([], [])


@pytest.mark.long
async def test_another_authority_takes_over_while_clients_write(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the page uses the openssl program, which is not installed")
    both, certificates, alone = documented_steps()
    async with ProcessCluster(3) as cluster:
        spread = Spread(cluster, tmp_path / "tls")
        spread.configure(raft_tls_operators=None)
        for node_id in cluster.nodes:
            cluster.start(node_id)
        await spread.ready()
        old = tmp_path / "old"
        shutil.copytree(spread.files_of(1)[0], old)
        first = Load(spread, 0)
        await spread.carry_out(both)
        second = Load(spread, 1)  # clients trust both before any node shows a certificate of the new one
        await first.end()
        await spread.carry_out(certificates)
        await spread.carry_out(alone)
        third = Load(spread, 2)
        await second.end()
        assert (spread.directory / "ca.pem").read_text().count("BEGIN CERTIFICATE") == 1
        authority, certificate, key = old / "ca.pem", old / "node1.pem", old / "node1-key.pem"
        for node in cluster.nodes.values():
            refused = await asyncio.to_thread(shakes_hands, node.raft, spread.directory / "ca.pem", certificate, key)
            assert refused, "a certificate of the old authority is no node's"
            for port in (node.raft, node.admin, node.grpc):
                refused = await asyncio.to_thread(shakes_hands, port, authority, certificate, key)
                assert "certificate verify failed" in refused, "and whoever trusts the old one meets no node"
        await third.end()
        for node_id in cluster.nodes:
            assert await cluster.stop(node_id) == 0
            cluster.start(node_id)
            await spread.ready()
        assert all(spread.loads(node_id, "failure") == {} for node_id in cluster.nodes)
