"""A cluster with everything on: TLS on three ports, secret, token, password; all are replaced while a client writes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509

from metasrv.client import AsyncClient
from metasrv.model.types import Endpoint
from metasrv.testing.processes import ProcessCluster
from tests.support.secret_procedure import documented_steps

HOST = "127.0.0.1"
PASSWORD = "the password of clients"
PROGRAM_SECONDS = 60


def metactl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metasrv.cli.ctl", *arguments]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False, env=given)


class Secured:
    """Three nodes that share one certificate, and what it takes to speak to them."""

    def __init__(self, cluster: ProcessCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.authority = str(directory / "ca.pem")
        self.token = "the first token"
        self.certify()

    def certify(self) -> int:
        """Make the certificate of the nodes, in place of the last one; returns its serial number."""
        arguments = ["--node", f"node={HOST},localhost", "--client", "operate"]
        made = metactl("cert", "generate", str(self.directory), *arguments)
        assert made.returncode == 0, made.stderr
        return x509.load_pem_x509_certificate((self.directory / "node.pem").read_bytes()).serial_number

    def configure(self, **raft: Any) -> None:
        """Write the configuration files, with these settings of the raft port; those that are None go."""
        certificate, key = str(self.directory / "node.pem"), str(self.directory / "node-key.pem")
        own = {"admin_token": self.token, "grpc_password": PASSWORD}
        for port in ("admin", "grpc"):
            own |= {f"{port}_tls_server_cert": certificate, f"{port}_tls_server_key": key}
        tls = {"raft_tls_ca": self.authority, "raft_tls_cert": certificate, "raft_tls_key": key}
        for node in self.cluster.nodes.values():
            settings = {**node.settings, **tls, "raft_tls_operators": ["operate"], **raft}
            node.settings = {name: value for name, value in settings.items() if value is not None}
            node.write_config()
            lines = "".join(f'{name} = "{value}"\n' for name, value in own.items())
            node.config_file.write_text(lines + node.config_file.read_text())

    def hang_up(self) -> None:
        for node_id in self.cluster.nodes:
            self.cluster.send_signal(node_id, signal.SIGHUP)

    # ------------------------------------------------------------------------- questions

    def admin(self, node_id: int, path: str) -> tuple[int, str]:
        """GET over TLS; code and body, 0 when nobody answers."""
        context = ssl.create_default_context(cafile=self.authority)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(
                f"https://{self.cluster.nodes[node_id].admin}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, ""
        except OSError:
            return 0, ""

    def loads(self, node_id: int, outcome: str = "success") -> dict[str, int]:
        """How often each part of a node was loaded anew, by name."""
        lines = self.admin(node_id, "/v1/metrics")[1].splitlines()
        found = [line for line in lines if line.startswith("metasrv_reloads_total{") and f'"{outcome}"' in line]
        return {line.split('name="')[1].partition('"')[0]: int(float(line.rpartition(" ")[2])) for line in found}

    def have_loaded_since(self, counts: dict[int, int]) -> bool:
        """Whether the raft port of every node has loaded its part more often than that."""
        return all(self.loads(node_id).get("raft", 0) > count for node_id, count in counts.items())

    def shown(self, endpoint: Endpoint) -> int:
        """The serial number of the certificate that a port shows."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.directory / "node.pem", self.directory / "node-key.pem")
        with context.wrap_socket(_connected(endpoint), server_hostname=HOST) as stream:
            encoded = stream.getpeercert(binary_form=True)
        assert encoded is not None
        return x509.load_der_x509_certificate(encoded).serial_number

    async def ready(self) -> None:
        await self.until(
            lambda: all(self.admin(node_id, "/readyz")[0] == 200 for node_id in self.cluster.nodes), "ready nodes"
        )

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - nothing tells when a node has done it
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}\n{self.cluster.logs()}") from None

    def client(self) -> AsyncClient:
        endpoints = [str(node.grpc) for node in self.cluster.nodes.values()]
        return AsyncClient(endpoints, password=PASSWORD, tls_ca_file=self.authority)


def _connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.addr, endpoint.port), timeout=5)


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
