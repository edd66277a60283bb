"""Scopes of tokens and certificates: what each opens, what is open without, and who stands in the audit line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.access import CERTIFICATE_NAME, Access, tokens_of
from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.model.errors import ConfigError
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

READ, OPERATE, SINGLE = "read-0123456789abcdef", "operate-0123456789abcdef", "single"
READS = {
    "probes": ["/livez", "/livez/loop", "/readyz", "/v1/health"],
    "metrics": ["/metrics", "/v1/metrics"],
    "status": ["/v1/cluster/status", "/v1/cluster/nodes", "/v1/features/list", "/openapi.json", "/nowhere", "/livezx"],
    "config": ["/v1/config"],
}
CHANGES = ["/v1/ctrl/trigger_snapshot", "/v1/features/set?feature=dummy&enable=true", "/debug/home"]
CERTIFICATES = {"admin_tls_client_names": ("reader:read", "operator:operate")}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


def tokens_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"prom:read:{READ}\nops:operate:{OPERATE}\n")
    return file


class Caller:
    """Asks an application, as somebody with this certificate."""

    def __init__(self, machine: StateMachine, tmp_path: Path, certificate: str | None = None, **keys: Any) -> None:
        values = {"raft_config": RaftConfig(raft_dir=str(tmp_path)), "admin_tokens_file": str(tokens_file(tmp_path))}
        config = self.config = Config.model_validate({**values, **keys}, strict=False)
        self.access = Access(config)
        self._app = create_app(fake_context(machine, config, leader_status())[0], self.access)
        self._certificate = certificate

    async def get(self, path: str, token: str | None = None) -> httpx.Response:
        async def with_certificate(scope: Any, receive: Any, send: Any) -> None:
            extensions = {} if self._certificate is None else {CERTIFICATE_NAME: self._certificate}
            await self._app({**scope, "extensions": extensions}, receive, send)

        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(with_certificate)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers=headers)


@pytest.mark.parametrize("path", CHANGES)
async def test_operating_needs_its_scope(machine: StateMachine, tmp_path: Path, path: str) -> None:
    caller = Caller(machine, tmp_path, admin_token=SINGLE)
    nobody, wrong, small = [await caller.get(path, token) for token in (None, "wrong", READ)]
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert (
        nobody.text == "this route needs a token or a client certificate of scope operate: Authorization: Bearer <token>"
    )
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
    assert small.status_code == 403
    assert small.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="operate"'
    assert small.text == "the token prom has the scope read, this route needs operate"
    for token in (OPERATE, SINGLE):
        assert (await caller.get(path, token)).status_code == 200


@pytest.mark.parametrize("group", READS)
async def test_each_group_of_reads_can_be_closed(machine: StateMachine, tmp_path: Path, group: str) -> None:
    others = tuple(name for name in READS if name != group)
    caller = Caller(machine, tmp_path, admin_open_routes=others)
    for name, paths in READS.items():
        for path in paths:
            missing = path in ("/nowhere", "/livezx")
            without = await caller.get(path)
            assert without.status_code == (401 if name == group else 404 if missing else 200), path
            for token in (READ, OPERATE):
                assert (await caller.get(path, token)).status_code == (404 if missing else 200)


async def test_without_any_credentials_nothing_is_asked_for(machine: StateMachine, tmp_path: Path) -> None:
    caller = Caller(machine, tmp_path, admin_tokens_file="")
    for path in [*CHANGES, *(path for paths in READS.values() for path in paths)]:
        assert (await caller.get(path)).status_code in (200, 404)
        assert (await caller.get(path, "any")).status_code in (200, 404)


@pytest.mark.parametrize(
    ("certificate", "reads", "operates"),
    [("reader", 200, 403), ("operator", 200, 200), ("stranger", 401, 401), (None, 401, 401)],
)
async def test_certificates_have_scopes(
    machine: StateMachine, tmp_path: Path, certificate: str | None, reads: int, operates: int
) -> None:
    caller = Caller(machine, tmp_path, certificate, admin_open_routes=(), admin_tokens_file="", **CERTIFICATES)
    read, operate = await caller.get("/v1/config"), await caller.get("/v1/ctrl/trigger_snapshot")
    assert (read.status_code, operate.status_code) == (reads, operates)
    if certificate == "reader":
        assert operate.text == "the certificate of reader has the scope read, this route needs operate"
    if certificate == "stranger":
        assert operate.text.endswith("; the certificate of stranger is not in `admin_tls_client_names`")


async def test_of_a_token_and_a_certificate_the_wider_scope_counts(machine: StateMachine, tmp_path: Path) -> None:
    path = "/v1/ctrl/trigger_snapshot"
    assert (await Caller(machine, tmp_path, "reader", **CERTIFICATES).get(path, OPERATE)).status_code == 200
    assert (await Caller(machine, tmp_path, "operator", **CERTIFICATES).get(path, READ)).status_code == 200
    assert (await Caller(machine, tmp_path, "operator", **CERTIFICATES).get(path, "wrong")).status_code == 401


async def test_the_audit_line_says_who_did_what_and_how_it_ended(
    machine: StateMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        caller = Caller(machine, tmp_path, "reader", admin_token=SINGLE, **CERTIFICATES)
        for path, token in (
            ("/v1/ctrl/trigger_snapshot", OPERATE),
            ("/v1/ctrl/trigger_snapshot", None),
            ("/v1/ctrl/trigger_snapshot", "wrong"),
            ("/v1/features/set?feature=none&enable=true", SINGLE),
        ):
            await caller.get(path, token)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "metasrv.audit"]
    named = ("token", "certificate", "scope", "authenticated", "status_code", "result")
    assert [tuple(line[name] for name in named) for line in lines] == [
        ("ops", "reader", "operate", True, 200, "done"),
        (None, "reader", "read", False, 403, "refused"),
        (None, None, None, False, 401, "refused"),
        ("admin_token", "reader", "operate", True, 400, "refused"),
    ]
    assert all(text not in caplog.text for text in (OPERATE, "Bearer"))


async def test_tokens_and_names_can_be_loaded_again(machine: StateMachine, tmp_path: Path) -> None:
    caller = Caller(machine, tmp_path)
    new = "new-0123456789abcdef"
    (tmp_path / "tokens").write_text(f"ops:operate:{new}\n")
    caller.access.use(caller.config, tokens_of(caller.config))
    assert (await caller.get("/debug/home", OPERATE)).status_code == 401
    assert (await caller.get("/debug/home", new)).status_code == 200
    assert (await caller.get("/v1/config")).status_code == 200
    closed = caller.config.model_copy(update={"admin_open_routes": (), "admin_token": SecretText(SINGLE)})
    caller.access.use(closed, tokens_of(closed))
    assert (await caller.get("/v1/config")).status_code == 401
    assert (await caller.get("/debug/home", SINGLE)).status_code == 200
    (tmp_path / "tokens").write_text("nothing")
    with pytest.raises(ConfigError):
        tokens_of(closed)
