"""The clusters that are attacked: a plain one, and one with TLS on all ports, passwords, users and tokens.

What the runner asks of both is the same. Files, certificates and secrets are made anew for each. Runs in the runner's
process, whose event loop only starts threads for what blocks.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import grpc

from metasrv.cli.certificates import generate
from metasrv.cli.ctl_admin import AdminClient, AdminError
from metasrv.client import AsyncClient
from metasrv.client.asynchronous import TIMEOUT_MS_DEFAULT
from metasrv.model.errors import MetasrvError
from metasrv.model.passwords import hash_password
from metasrv.protocol.proto import meta_pb2_grpc
from metasrv.testing.process_node import HOST
from metasrv.testing.processes import ProcessCluster
from verification.attack.catalog import Given
from verification.attack.credential_attacks import handshake_request
from verification.attack.target import Credentials, in_base64

LOGINS_PER_SECOND = 2.0
ATTACKER = "attacker"
ENDED = "removed"


class PlainCluster(ProcessCluster):
    """Three nodes as they are without any setting that secures them."""

    has_tls = False

    async def prepare(self) -> None:
        """Start, and make what attackers are given."""
        await self.boot()

    async def give(self, given: Given) -> Credentials:
        """What an attacker has."""
        del given
        return Credentials()

    async def renew_logins(self, leader: int, count: int) -> list[AsyncClient]:
        """Clients that have yet to log in, with passwords that the node has not seen."""
        del leader, count
        return []


class SecuredCluster(PlainCluster):
    """Three nodes with TLS on three ports; every client has a password, and everything but probes asks for a token."""

    has_tls = True

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._files = self.directory / "tls"
        self._authority = str(self._files / "ca.pem")
        self._password, self._operator, self._reader = (secrets.token_hex(16) for _ in range(3))
        self._passwords: dict[str, str] = {}
        """The users whose tokens attackers are given."""
        self._tokens: dict[str, bytes] = {}
        self._logins: set[str] = set()
        """Users that there are for clients who log in anew."""
        generate(self._files, {"node": [HOST]}, ["client"], days=1)
        tokens = self.directory / "admin-tokens"
        tokens.touch(0o600)
        tokens.write_text(f"attacker:read:{self._reader}\n", encoding="utf-8")
        own = {
            "admin_token": self._operator,
            "admin_tokens_file": str(tokens),
            "admin_open_routes": ["probes"],
            "grpc_password": hash_password(self._password),
            "grpc_require_token": "all",
        }
        certificate, key = self._pair("node")
        for port in ("admin", "grpc"):
            own |= {f"{port}_tls_server_cert": certificate, f"{port}_tls_server_key": key}
        raft = {"raft_tls_ca": self._authority, "raft_tls_cert": certificate, "raft_tls_key": key}
        raft["raft_secret"] = secrets.token_hex(16)
        for node in self.nodes.values():
            node.own_settings = dict(own)
            node.settings = {**node.settings, **raft}
            node.write_config()

    def _pair(self, name: str) -> tuple[str, str]:
        return str(self._files / f"{name}.pem"), str(self._files / f"{name}-key.pem")

    # ------------------------------------------------------------------------- as a plain cluster

    async def status(self, node_id: int) -> dict[str, Any] | None:
        try:
            status = json.loads(await asyncio.to_thread(self._operate(node_id).text, "/v1/cluster/status"))
        except (MetasrvError, ValueError):
            return None
        return status if isinstance(status, dict) else None

    async def admin(self, node_id: int, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
        """GET an open route, without a token."""
        del timeout_s
        asking = AdminClient(f"https://{self.nodes[node_id].admin}", None, self._authority)
        try:
            return 200, await asyncio.to_thread(asking.text, path)
        except AdminError as error:
            return error.code, str(error)
        except MetasrvError as error:
            raise ConnectionError(str(error)) from error

    def client(self, *node_ids: int, timeout_ms: int = TIMEOUT_MS_DEFAULT) -> AsyncClient:
        endpoints = [str(self.nodes[node_id].grpc) for node_id in node_ids or sorted(self.nodes)]
        return AsyncClient(
            endpoints, timeout_ms=timeout_ms, username="root", password=self._password, tls_ca_file=self._authority
        )

    # ------------------------------------------------------------------------- what attackers and clients have

    async def prepare(self) -> None:
        leader = await self.boot()
        operate = self._operate(leader)
        await asyncio.to_thread(operate.text, "/v1/features/set", feature="users", enable="true")
        self._passwords = {name: secrets.token_hex(8) for name in (ATTACKER, ENDED)}
        for name, password in self._passwords.items():
            await self._set(leader, change="add", name=name, password_hash=hash_password(password))
            await self._set(leader, change="grant", name=name, right="read", prefix="")
            self._tokens[name] = await self._token(leader, name)
        await self._set(leader, change="remove", name=ENDED)

    async def give(self, given: Given) -> Credentials:
        if given is Given.CLIENT:
            return Credentials(in_base64(self._tokens[ATTACKER]), self._reader)
        if given is Given.ENDED:
            return Credentials(in_base64(self._tokens[ENDED]))
        return Credentials("", "", *self._pair("client")) if given is Given.CERTIFICATE else Credentials()

    async def renew_logins(self, leader: int, count: int) -> list[AsyncClient]:
        clients = []
        for number in range(count):
            name, password = f"login-{number}", secrets.token_hex(8)
            hashed = await asyncio.to_thread(hash_password, password)
            if name in self._logins:
                await self._set(leader, change="set-password", name=name, password_hash=hashed)
            else:
                await self._set(leader, change="add", name=name, password_hash=hashed)
                await self._set(leader, change="grant", name=name, right="read", prefix="load/")
                self._logins.add(name)
            endpoints = [str(self.nodes[leader].grpc)]
            clients.append(AsyncClient(endpoints, username=name, password=password, tls_ca_file=self._authority))
        return clients

    async def _token(self, node_id: int, name: str) -> bytes:
        tls = grpc.ssl_channel_credentials(await asyncio.to_thread(Path(self._authority).read_bytes))
        async with grpc.aio.secure_channel(str(self.nodes[node_id].grpc), tls) as channel:
            make_stub: Any = meta_pb2_grpc.MetaServiceStub
            call = make_stub(channel).Handshake(iter([handshake_request(name, self._passwords[name])]), timeout=5)
            async for response in call:
                token: bytes = response.payload
                return token
        raise ConnectionError("a handshake ended without an answer")

    async def _set(self, node_id: int, **change: str) -> None:
        await asyncio.to_thread(self._operate(node_id).post, "/v1/users/set", change)

    def _operate(self, node_id: int) -> AdminClient:
        return AdminClient(f"https://{self.nodes[node_id].admin}", self._operator, self._authority)


def size_bytes(path: Path) -> int:
    """The size of a file that may not be there yet."""
    return path.stat().st_size if path.exists() else 0
