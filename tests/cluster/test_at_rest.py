"""A node with every secret set: none leaves it by any way it answers or writes, and its files are for its user alone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shlex
import sqlite3
import ssl
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from metasrv.cli.node_process import start_node
from metasrv.client import Client
from metasrv.testing.ports import PortReservation
from tests.support.authority import Authority
from tests.support.planted_secrets import PlantedSecrets, forms_of

HOST = "127.0.0.1"
READY_SECONDS = 60.0
METACTL = "metasrv.cli.ctl"
SERVER = "metasrv.cli.server"
PROFILES = (
    "seconds=1",
    "seconds=1&format=svg",
    "seconds=1&format=folded",
    "seconds=1&format=speedscope",
    "seconds=1&format=memray",
)


class Planted:
    """One running node, all of its secrets, and ways to ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secrets = PlantedSecrets()
        self.unpacked: set[str] = set()
        """Names of the files of archives that were searched."""
        self.admin, self.raft, self.grpc = (f"{HOST}:{port}" for port in (take() for take in [_ports.take] * 3))
        authority = Authority(directory / "authority")
        authority.certify("node")
        self.authority = authority.directory
        self.token = self.secrets.plant("admin-token")
        self.password = self.secrets.plant("grpc-password")
        self.raft_secret = self.secrets.plant("raft-secret")
        self.accepted = self.secrets.plant("raft-accepted")
        self.secrets.add_key_file("tls-key", self.authority / "node.key")
        self.raft_dir, self.log_dir = directory / "data", directory / "logs"
        for path in (self.raft_dir, self.log_dir):
            path.mkdir()
            path.chmod(0o755)
        self.config_file, self.console = directory / "node.toml", directory / "console.log"
        self.config_file.write_text(self._config(), encoding="utf-8")
        self.process = start_node(self.config_file, self.console, die_with_parent=True)

    def _config(self) -> str:
        certificate, key = (json.dumps(str(self.authority / name)) for name in ("node.pem", "node.key"))
        return f"""
admin_api_address = "{self.admin}"
admin_tls_server_cert = {certificate}
admin_tls_server_key = {key}
admin_token = "{self.token}"
grpc_api_address = "{self.grpc}"
grpc_api_advertise_host = "{HOST}"
grpc_tls_server_cert = {certificate}
grpc_tls_server_key = {key}
grpc_password = "{self.password}"
[log.file]
level = "Debug"
dir = {json.dumps(str(self.log_dir))}
[log.stderr]
on = true
level = "Debug"
[raft_config]
id = 1
raft_listen_host = "{HOST}"
raft_advertise_host = "{HOST}"
raft_api_port = {self.raft.rpartition(":")[2]}
raft_dir = {json.dumps(str(self.raft_dir))}
single = true
raft_secret = "{self.raft_secret}"
raft_accepted_secrets = ["{self.accepted}"]
raft_tls_ca = {json.dumps(str(self.authority / "ca.pem"))}
raft_tls_cert = {certificate}
raft_tls_key = {key}
"""

    def ask(self, method: str, target: str, *, token: str | None = None, body: bytes | None = None) -> tuple[int, bytes]:
        """One request over TLS; returns the code and everything that came back, headers included."""
        context = ssl.create_default_context(cafile=str(self.authority / "ca.pem"))
        host, _, port = self.admin.rpartition(":")
        connection = HTTPSConnection(host, int(port), context=context, timeout=60)
        headers = {"X-Metasrv-Action": "test"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            endless = answer.getheader("Content-Type", "").startswith("application/x-ndjson")
            content = b"".join(answer.readline() for _ in range(3)) if endless else answer.read()
            return answer.status, str(answer.getheaders()).encode() + content
        finally:
            connection.close()

    def look_at_answer(self, method: str, target: str, **more: Any) -> tuple[int, bytes]:
        code, answer = self.ask(method, target, **more)
        self.secrets.look(f"the answer {code} to {method} {target}", answer)
        if method == "GET" and code == 200 and target.startswith("/v1/diagnostics"):
            self.look_at_archive(target, answer[answer.index(b"\x1f\x8b") :])
        return code, answer

    def look_at_archive(self, where: str, archive: bytes) -> None:
        """Search what an archive has, file by file."""
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            for member in files:
                file = files.extractfile(member)
                assert file is not None
                self.secrets.look(f"{member.name} of {where}", file.read())
                self.unpacked.add(member.name.rpartition("/")[2])

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """A program of metasrv; what it prints is searched."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.secrets.look(f"what {shlex.join(command)} prints", done.stdout + done.stderr)
        return done

    def metactl(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        variables = {"METASRV_ADMIN_TOKEN": self.token, "METASRV_GRPC_PASSWORD": self.password}
        return self.run(METACTL, *arguments, **variables)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except (OSError, HTTPException):
                assert self.process.poll() is None, self.console.read_text()
            assert time.monotonic() < deadline, self.console.read_text()
            time.sleep(0.1)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


_ports = PortReservation()


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    node = Planted(tmp_path)
    try:
        node.wait_until_ready()
        yield node
    finally:
        node.close()


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    for shift in range(3):
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            planted = PlantedSecrets()
            text = planted.plant("x")
            planted.look("here", b"..." + alphabet(b"q" * shift + text.encode() + b"zz") + b"...")
            assert planted.seen
    planted = PlantedSecrets()
    text = planted.plant("x")
    planted.look("here", f"in {text} hidden, {text.encode().hex()}, {text.encode().hex().upper()}")
    assert len(planted.seen) == 3
    assert not [form for form in forms_of(b"another secret of this length") if form in text.encode()]


@pytest.mark.long
@pytest.mark.slow
async def test_no_secret_leaves_a_node_and_its_files_are_for_its_user_alone(planted: Planted) -> None:
    await asyncio.to_thread(_walk, planted)
    assert planted.secrets.searched_bytes > 100_000
    assert planted.secrets.seen == []


def _walk(planted: Planted) -> None:
    _learn_the_key_of_tokens(planted)
    _walk_metactl(planted)
    _walk_routes(planted)
    _send_bad_requests(planted)
    _walk_server_program(planted)
    _look_at_processes(planted)
    _check_rights(planted)
    planted.process.terminate()
    assert planted.process.wait(30) == 0
    logs = sorted(planted.log_dir.iterdir())
    assert logs
    for path in [planted.console, *logs]:
        planted.secrets.look(str(path), path.read_bytes())
    assert "was open to other users (mode 0755)" in planted.console.read_text()


def _learn_the_key_of_tokens(planted: Planted) -> None:
    """The cluster makes it with the first handshake. A token itself is what a client is given, and no secret to it."""
    with Client([planted.grpc], password=planted.password, tls_ca_file=str(planted.authority / "ca.pem")) as client:
        client.upsert("key", planted.secrets.plant("value").encode())
    deadline = time.monotonic() + 10
    rows: list[tuple[bytes]] = []
    with closing(sqlite3.connect(f"file:{planted.raft_dir}/df_meta/V004/state/state.db?mode=ro", uri=True)) as state:
        while not rows and time.monotonic() < deadline:  # what is applied is committed some time later
            rows = state.execute("SELECT secret FROM secrets").fetchall()
    ((secret,),) = rows
    planted.secrets.add("token-key", bytes(secret))


def _walk_metactl(planted: Planted) -> None:
    tls = ["--grpc-tls-ca-file", str(planted.authority / "ca.pem")]
    grpc = ["--grpc-api-address", planted.grpc, *tls]
    admin = ["--admin-api-address", planted.admin, "--admin-tls-ca-file", str(planted.authority / "ca.pem")]
    export, bundle = planted.directory / "export.jsonl", planted.directory / "bundle.tar.gz"
    done = {
        "status": planted.metactl("status", *grpc),
        "member-list": planted.metactl("member-list", *grpc),
        "keys-layout": planted.metactl("keys-layout", *grpc),
        "bench": planted.metactl("bench-client-num-conn", "--num", "2", *grpc),
        "export": planted.metactl("export", *grpc),
        "export to a file": planted.metactl("export", "--db", str(export), *grpc),
        "get": planted.metactl("get", "--key", "key", *grpc),
        "upsert": planted.metactl("upsert", "--key", "key", "--value", "other", *grpc),
        "trigger-snapshot": planted.metactl("trigger-snapshot", *admin),
        "list-features": planted.metactl("list-features", *admin),
        "metrics": planted.metactl("metrics", *admin),
        "log-level": planted.metactl("log-level", "--logger", "metasrv", "--level", "trace", *admin),
        "slow-writes": planted.metactl("slow-writes", "-o", "json", *admin),
        "diagnose": planted.metactl("diagnose", "-o", str(bundle), *admin),
    }
    assert {name: result.stderr for name, result in done.items() if result.returncode != 0} == {}
    planted.metactl("transfer-leader", *admin)  # there is nobody to hand it to
    planted.metactl("set-feature", "--feature", "none", "--enable", "true", *admin)
    planted.secrets.look("an exported file", export.read_bytes())
    planted.look_at_archive("a bundle of metactl", bundle.read_bytes())
    assert stat.S_IMODE(export.stat().st_mode) == stat.S_IMODE(bundle.stat().st_mode) == 0o600
    for command in ("", "status", "export", "trigger-snapshot"):
        planted.metactl(*shlex.split(command), "--help")


def _walk_routes(planted: Planted) -> None:
    code, description = planted.look_at_answer("GET", "/openapi.json")
    assert code == 200
    paths = json.loads(description[description.index(b'{"openapi"') :])["paths"]
    assert len(paths) > 12
    asked = 0
    for path, methods in paths.items():
        target = path.replace("{check}", "raft").replace("{name}", "raft")
        for method in sorted(methods):
            is_profile = path.startswith("/debug/") and "profile" in path
            queries = (PROFILES if method == "get" else PROFILES[:1]) if is_profile else ("", "verbose")
            for query in queries:
                for token in (planted.token, None):
                    planted.look_at_answer(method.upper(), f"{target}?{query}".rstrip("?"), token=token)
                    asked += 1
    assert asked > 50
    assert {"configuration.txt", "log.txt", "threads.txt", "summary.md"} <= planted.unpacked


def _send_bad_requests(planted: Planted) -> None:
    """Secrets in wrong places are not repeated either: not in answers, and not in the lines that record a request."""
    token = planted.token
    for method, target in (
        ("POST", f"/v1/ctrl/trigger_snapshot?token={token}"),
        ("POST", f"/v1/features/set?feature={token}&enable=maybe"),
        ("GET", f"/{token}"),
        ("DELETE", "/v1/config"),
        ("GET", f"/debug/pprof/profile?seconds=1&format={token}"),
    ):
        _, answer = planted.ask(method, target, body=token.encode())
        if target.startswith(("/v1/ctrl", "/v1/config")):
            planted.secrets.look(f"the answer to {method} {target}", answer)
    planted.look_at_answer("GET", "/v1/config", token=token + "x")
    planted.look_at_answer("POST", "/v1/ctrl/trigger_snapshot", token=token[:-1])
    with Client(
        [planted.grpc], password="wrong", tls_ca_file=str(planted.authority / "ca.pem"), timeout_ms=2000
    ) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, its text is searched
            client.get("key")
        planted.secrets.look("the error of a wrong password", repr(caught.value))


def _walk_server_program(planted: Planted) -> None:
    config = ["-c", str(planted.config_file)]
    done = planted.run(SERVER, *config, "--cmd", "show-config")
    assert done.returncode == 0
    assert b'"raft_secret": "***"' in done.stdout
    planted.run(SERVER, *config, "--cmd", "ver")
    planted.run(SERVER, *config, "config", "show")
    planted.run(SERVER, "config", "check", str(planted.config_file))
    assert planted.run(SERVER, *config).returncode == 5  # its directory is in use
    planted.run(SERVER, "--help")
    broken = planted.directory / "broken.toml"
    text = planted.config_file.read_text()
    for before, after in (
        (f'admin_token = "{planted.token}"', f'admin_token = ["{planted.token}"]'),
        (f'grpc_password = "{planted.password}"', f'grpc_password = "{planted.password}'),
        (f'raft_accepted_secrets = ["{planted.accepted}"]', f'raft_accepted_secrets = "{planted.accepted}"'),
        (f'raft_secret = "{planted.raft_secret}"', f'raft_sekret = "{planted.raft_secret}"'),
        ("id = 1", 'id = "one"'),
    ):
        assert before in text
        broken.write_text(text.replace(before, after))
        planted.run(SERVER, "config", "check", str(broken))
        planted.run(SERVER, "-c", str(broken), "--cmd", "show-config")


def _look_at_processes(planted: Planted) -> None:
    """Command lines, of the node and of what it starts."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            planted.secrets.look(f"the command line {command!r}", command)


def _check_rights(planted: Planted) -> None:
    paths = [planted.raft_dir, planted.log_dir, *planted.raft_dir.rglob("*"), *planted.log_dir.rglob("*")]
    names = {path.name for path in paths}
    assert {"raft.db", "raft.db-wal", "raft.db-mark", "state.db", "state.db-wal", "state.db-shm", "node.json"} <= names
    assert any(name.endswith(".snap") for name in names)
    modes = {str(path): oct(stat.S_IMODE(path.lstat().st_mode)) for path in paths}
    wanted = {str(path): oct(0o700 if path.is_dir() else 0o600) for path in paths}
    assert modes == wanted
