"""Clusters of real nodes with TLS on three ports, secret, token and password: for tests of what is replaced there."""

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
from pathlib import Path
from typing import Any

from cryptography import x509

from metasrv.client import AsyncClient
from metasrv.model.types import Endpoint
from metasrv.testing.processes import ProcessCluster

HOST = "127.0.0.1"
PASSWORD = "the password of clients"
PROGRAM_SECONDS = 60


def metactl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metasrv.cli.ctl", *arguments]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False, env=given)


class Secured:
    """Nodes that share one certificate, and what it takes to speak to them."""

    def __init__(self, cluster: ProcessCluster, directory: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.authority = str(directory / "ca.pem")
        self.token = "the first token"
        self.certify()

    def certify(self) -> int:
        """Make the certificates of the nodes, in place of the last ones; returns the serial number of the first."""
        arguments = ["--node", f"node={HOST},localhost", "--client", "operate"]
        made = metactl("cert", "generate", str(self.directory), *arguments)
        assert made.returncode == 0, made.stderr
        return x509.load_pem_x509_certificate((self.directory / "node.pem").read_bytes()).serial_number

    def configure(self, **raft: Any) -> None:
        """Write the configuration files, with these settings of the raft port; those that are None go."""
        for node in self.cluster.nodes.values():
            files, name = self.files_of(node.node_id)
            certificate, key = str(files / f"{name}.pem"), str(files / f"{name}-key.pem")
            own: dict[str, Any] = {"admin_token": self.token, "grpc_password": PASSWORD}
            for port in ("admin", "grpc"):
                own |= {f"{port}_tls_server_cert": certificate, f"{port}_tls_server_key": key}
            tls = {"raft_tls_ca": str(files / "ca.pem"), "raft_tls_cert": certificate, "raft_tls_key": key}
            settings = {**node.settings, **tls, "raft_tls_operators": ["operate"], **raft}
            node.settings = {name: value for name, value in settings.items() if value is not None}
            node.own_settings = own
            node.write_config()

    def files_of(self, node_id: int) -> tuple[Path, str]:
        """The directory whose files a node is configured with, and the name of its certificate there."""
        del node_id
        return self.directory, "node"

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
        with context.wrap_socket(connected(endpoint), server_hostname=HOST) as stream:
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


def connected(endpoint: Endpoint) -> socket.socket:
    """A connection to a port, in plain TCP."""
    return socket.create_connection((endpoint.addr, endpoint.port), timeout=5)
