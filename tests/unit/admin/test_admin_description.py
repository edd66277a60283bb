"""The API's description names every code, with examples; what caches may keep, and what they ask about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from metasrv.admin.app import create_app, create_health_app
from metasrv.admin.description import AREAS, COMMON, description, load_examples, operations
from metasrv.admin.problem import speaks_problems
from metasrv.config.model import Config, RaftConfig
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

REVALIDATED = ("/v1/config", "/v1/cluster/nodes", "/openapi.json", "/v1/runbooks/no-leader", "/", "/ui/console.js")
NOT_KEPT = ("/v1/cluster/status", "/v1/cluster/members", "/v1/console", "/v1/metrics", "/livez", "/v1/users/list")


@pytest.fixture
def context(tmp_path: Path) -> Any:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    yield fake_context(machine, Config(raft_config=RaftConfig(id=1, raft_dir=str(tmp_path))), leader_status())[0]
    machine.close()


@pytest.fixture
def app(context: NodeContext) -> FastAPI:
    return create_app(context)


@pytest.fixture
async def admin(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


# ----------------------------------------------------------------------------- the description


def test_every_route_has_an_area_every_code_and_examples(app: FastAPI) -> None:
    whole = description(app)
    assert [tag["name"] for tag in whole["tags"]] == list(AREAS), "each area has a route"
    shared = whole["components"]["responses"]
    for path, method, operation in operations(whole):
        assert set(operation["tags"]) <= set(AREAS), path
        codes = operation["responses"]
        assert {"200", "401", "403", *map(str, COMMON)} <= set(codes), path
        for code, given in codes.items():
            answer = shared[given["$ref"].rpartition("/")[2]] if "$ref" in given else given
            assert answer["description"], (path, code)
            if int(code) >= 400 and int(code) not in (431, 503) and not path.startswith(("/livez", "/readyz")):
                wanted = "application/problem+json" if speaks_problems(path) else "text/plain"
                assert wanted in answer["content"], (path, code)
                assert all("example" in content for content in answer["content"].values()), (path, code)
        assert (method, path) != ("get", "/v1/cluster/status") or "example" in str(codes["200"])


def test_examples_belong_to_routes(app: FastAPI) -> None:
    known = {f"{method} {path}" for path, method, _ in operations(description(app))}
    assert load_examples().keys() <= known
    assert len(load_examples()) > 20


# ----------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("DELETE", "/v1/cluster/members/9", 404),
        ("POST", "/v1/users/set", 403),
        ("GET", "/v1/users/set", 405),
        ("GET", "/v1/backup/list", 404),
        ("POST", "/v1/ctrl/trigger_backup", 404),
        ("POST", "/v1/ctrl/read_only", 400),
        ("POST", "/v1/ctrl/drain", 400),
        ("GET", "/v1/ctrl/compact", 405),
        ("GET", "/v1/cluster/members/9/gone", 404),
    ],
)
async def test_own_routes_answer_faults_as_problems(admin: httpx.AsyncClient, method: str, path: str, code: int) -> None:
    answer = await admin.request(method, path, headers={"X-Metasrv-Action": "test"})
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json"), answer.text
    assert answer.json()["status"] == code
    assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/features/set", "/v1/ctrl/gone", "/livez/gone", "/v1/cluster/gone"])
async def test_routes_that_others_know_keep_their_form(admin: httpx.AsyncClient, path: str) -> None:
    answer = await admin.get(path)
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


# ----------------------------------------------------------------------------- caches


@pytest.mark.parametrize("path", REVALIDATED)
async def test_what_seldom_changes_is_asked_about(admin: httpx.AsyncClient, path: str) -> None:
    whole = await admin.get(path)
    etag = whole.headers["etag"]
    assert (whole.status_code, whole.headers["cache-control"]) == (200, "no-cache")
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        known = await admin.get(path, headers={"If-None-Match": given})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag), given
        assert known.headers["cache-control"] == "no-cache"
    assert (await admin.get(path, headers={"If-None-Match": '"other"'})).content == whole.content
    head = await admin.head(path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert (await admin.head(path, headers={"If-None-Match": etag})).status_code == 304


async def test_a_configuration_that_changed_has_another_name(admin: httpx.AsyncClient, context: NodeContext) -> None:
    before = (await admin.get("/v1/config")).headers["etag"]
    context.config = context.config.model_copy(update={"admin_get_actions": False})
    after = await admin.get("/v1/config", headers={"If-None-Match": before})
    assert (after.status_code, after.headers["etag"] != before) == (200, True)


@pytest.mark.parametrize("path", NOT_KEPT)
async def test_nothing_else_is_kept(admin: httpx.AsyncClient, path: str) -> None:
    for answer in (await admin.get(path), await admin.head(path)):
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers


async def test_probes_of_their_own_port_are_not_kept_either(context: NodeContext) -> None:
    transport = httpx.ASGITransport(create_health_app(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/livez")).headers["cache-control"] == "no-store"
