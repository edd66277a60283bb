"""What stands before the routes: the token, other web sites, body limits, the audit line, the request count."""

from __future__ import annotations

import json
import logging
import re
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
    return Config.model_validate(
        {"raft_config": RaftConfig(raft_dir=str(tmp_path)), "admin_allowed_hosts": ("node",), **changes}, strict=False
    )


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


ACTIONS = [path for path in PROTECTED if path != "/debug/home"]
MARKS: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Mode": "no-cors"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://node.evil.example"},
    {"Referer": "http://evil.example/page"},
    {"Referer": "http://node:81/"},
    {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120"},
]


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("mark", MARKS)
async def test_web_pages_are_refused(
    unguarded: tuple[httpx.AsyncClient, NodeContext], path: str, mark: dict[str, str]
) -> None:
    for answer in (
        await unguarded[0].get(path, headers=mark),
        await unguarded[0].post(path, headers={**mark, "X-Metasrv-Action": "1"}),
    ):
        assert answer.status_code == 403
        assert answer.text.startswith("a web page may not change or profile this node")


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize(
    "mark", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://node"}, {"Referer": "http://node/x"}]
)
async def test_programs_and_the_nodes_own_pages_are_not(
    unguarded: tuple[httpx.AsyncClient, NodeContext], path: str, mark: dict[str, str]
) -> None:
    assert (await unguarded[0].get(path, headers=mark)).status_code == 200


async def test_a_page_of_links_may_be_opened_by_a_person(unguarded: tuple[httpx.AsyncClient, NodeContext]) -> None:
    mark = {"Sec-Fetch-Site": "none", "User-Agent": "Mozilla/5.0"}
    assert (await unguarded[0].get("/debug/home", headers=mark)).status_code == 200


@pytest.mark.parametrize("path", ACTIONS)
async def test_a_post_needs_a_header_that_no_form_can_set(
    unguarded: tuple[httpx.AsyncClient, NodeContext], path: str
) -> None:
    bare = await unguarded[0].post(path)
    assert bare.status_code == 403
    assert "X-Metasrv-Action" in bare.text
    assert (await unguarded[0].post(path, headers={"X-Metasrv-Action": "yes"})).status_code == 200


@pytest.mark.parametrize("path", ACTIONS)
async def test_get_can_be_switched_off(tmp_path: Path, machine: StateMachine, path: str) -> None:
    context, _ = fake_context(machine, config_of(tmp_path, admin_get_actions=False), leader_status())
    async with client_of(context) as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert "admin_get_actions" in refused.text
        assert (await client.post(path, headers={"X-Metasrv-Action": "1"})).status_code == 200
        assert (await client.get("/v1/cluster/status")).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:28101", "node.evil.example", "", "[::1", "node:x", "n\xf6de"]
)
async def test_a_name_that_is_not_this_nodes_is_refused(
    unguarded: tuple[httpx.AsyncClient, NodeContext], host: str
) -> None:
    for path in ("/v1/cluster/status", "/v1/ctrl/trigger_snapshot", "/nowhere"):
        answer = await unguarded[0].get(path, headers=[(b"Host", host.encode("latin-1"))])
        assert answer.status_code == 421
        assert "admin_allowed_hosts" in answer.text
    for path in ("/livez", "/v1/health", "/v1/metrics"):
        assert (await unguarded[0].get(path, headers=[(b"Host", host.encode("latin-1"))])).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["node", "NODE.:28101", "localhost", "a.localhost:1", "127.0.0.1:28101", "10.1.2.3", "[::1]:28101", "[fe80::1]"],
)
async def test_its_own_names_and_addresses_are_answered(
    unguarded: tuple[httpx.AsyncClient, NodeContext], host: str
) -> None:
    assert (await unguarded[0].get("/v1/cluster/status", headers={"Host": host})).status_code == 200


async def test_a_suffix_allows_all_names_below_it(tmp_path: Path, machine: StateMachine) -> None:
    config = config_of(tmp_path, admin_allowed_hosts=(".svc.cluster.local",))
    async with client_of(fake_context(machine, config, leader_status())[0]) as client:
        for host, code in (("meta.db.svc.cluster.local:80", 200), ("evilsvc.cluster.local", 421), ("node", 421)):
            assert (await client.get("/v1/cluster/status", headers={"Host": host})).status_code == code


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
    assert lines[0]["request_id"] != lines[1]["request_id"]


async def test_the_audit_line_has_the_id_that_the_client_gives(
    guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        for name in ("req-17", "two words"):
            await guarded.get("/v1/ctrl/trigger_snapshot", headers={"X-Request-Id": name})
    given, made = (json.loads(line)["request_id"] for line in caplog.messages)
    assert given == "req-17"
    assert re.fullmatch(r"\d+-[0-9a-f]{12}", made)


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
