"""What stands before the routes: the token, other web sites, body limits, the audit line, the request count."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig
from metasrv.model.limits import ADMIN_BODY_SIZE_BYTES_MAX, ADMIN_QUERY_AUDITED_CHARACTERS_MAX
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

TOKEN = "correct horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPEN = ["/v1/health", "/livez", "/v1/cluster/status", "/v1/cluster/nodes", "/v1/metrics", "/v1/features/list"]
PROTECTED = [
    "/v1/ctrl/trigger_snapshot",
    "/v1/ctrl/trigger_transfer_leader",
    "/v1/features/set?feature=dummy&enable=true",
    "/debug/home",
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


def client_of(context: NodeContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(context)), base_url="http://node")


def config_of(tmp_path: Path, **changes: Any) -> Config:
    return Config.model_validate({"raft_config": RaftConfig(raft_dir=str(tmp_path)), **changes}, strict=False)


@pytest.fixture
async def guarded(tmp_path: Path, machine: StateMachine) -> AsyncIterator[httpx.AsyncClient]:
    context, _ = fake_context(machine, config_of(tmp_path, admin_token=TOKEN), leader_status())
    async with client_of(context) as client:
        yield client


@pytest.fixture
async def unguarded(tmp_path: Path, machine: StateMachine) -> AsyncIterator[tuple[httpx.AsyncClient, NodeContext]]:
    context, _ = fake_context(machine, config_of(tmp_path), leader_status())
    async with client_of(context) as client:
        yield client, context


@pytest.mark.parametrize("path", OPEN)
async def test_reads_and_probes_need_no_token(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer caf\xe9"]
)
async def test_changes_and_profiles_need_the_token(guarded: httpx.AsyncClient, path: str, header: str | None) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    answer = await guarded.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


@pytest.mark.parametrize("path", PROTECTED)
async def test_the_token_opens_them(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path, headers=BEARER)).status_code == 200
    assert (await guarded.get(path, headers={"Authorization": f"bearer {TOKEN}"})).status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
async def test_without_a_configured_token_they_are_open(
    unguarded: tuple[httpx.AsyncClient, NodeContext], path: str
) -> None:
    assert (await unguarded[0].get(path)).status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
async def test_other_web_sites_are_refused(unguarded: tuple[httpx.AsyncClient, NodeContext], path: str) -> None:
    answer = await unguarded[0].get(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert answer.text == "a request from another web site may not change or profile this node"
    for site in ("same-origin", "none"):
        assert (await unguarded[0].get(path, headers={"Sec-Fetch-Site": site})).status_code == 200


async def test_other_web_sites_may_read(unguarded: tuple[httpx.AsyncClient, NodeContext]) -> None:
    answer = await unguarded[0].get("/v1/cluster/status", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200


@pytest.mark.parametrize(("size_bytes", "code"), [(ADMIN_BODY_SIZE_BYTES_MAX, 405), (ADMIN_BODY_SIZE_BYTES_MAX + 1, 413)])
async def test_a_body_may_be_as_large_as_the_limit(
    unguarded: tuple[httpx.AsyncClient, NodeContext], size_bytes: int, code: int
) -> None:
    answer = await unguarded[0].post("/v1/cluster/status", content=b"x" * size_bytes)
    assert answer.status_code == code


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30])
async def test_an_impossible_content_length_is_413(unguarded: tuple[httpx.AsyncClient, NodeContext], length: str) -> None:
    answer = await unguarded[0].get("/v1/health", headers={"Content-Length": length})
    assert answer.status_code == 413


async def test_every_change_leaves_one_audit_line(guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        await guarded.get("/v1/cluster/status")
        await guarded.get("/v1/ctrl/trigger_snapshot")
        await guarded.get("/v1/ctrl/trigger_transfer_leader?to=3", headers=BEARER)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "metasrv.audit"]
    assert [(line["path"], line["query"], line["status_code"], line["authenticated"]) for line in lines] == [
        ("/v1/ctrl/trigger_snapshot", "", 401, False),
        ("/v1/ctrl/trigger_transfer_leader", "to=3", 200, True),
    ]
    assert (lines[1]["node_id"], lines[1]["term"], lines[1]["last_applied"], lines[1]["method"]) == (1, 67, 53067, "GET")
    assert lines[1]["client"].startswith("127.0.0.1:")
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("past", [0, 1])
async def test_the_audit_line_holds_so_much_of_a_query(
    guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, past: int
) -> None:
    query = "x" * (ADMIN_QUERY_AUDITED_CHARACTERS_MAX - 1) + "y" + "z" * past
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        await guarded.get(f"/v1/ctrl/trigger_snapshot?{query}")
    (line,) = [json.loads(record.getMessage()) for record in caplog.records if record.name == "metasrv.audit"]
    assert line["query"] == query[:ADMIN_QUERY_AUDITED_CHARACTERS_MAX]


async def test_requests_are_counted_by_route_and_never_by_made_up_path(
    unguarded: tuple[httpx.AsyncClient, NodeContext],
) -> None:
    client, context = unguarded
    await client.get("/v1/health")
    await client.get("/v1/made-up/1")
    await client.get("/v1/made-up/2")
    await client.get("/readyz/leader")
    await client.request("BREW", "/v1/health")
    assert context.metrics.work.admin_requests.values == {
        ("/v1/health", "GET", "200"): 1,
        ("unknown", "GET", "404"): 2,
        ("/readyz/{check}", "GET", "200"): 1,
        ("/v1/health", "other", "405"): 1,
    }
