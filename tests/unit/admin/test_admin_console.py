"""The console's routes: codes, headers, problems in JSON, who may look at keys."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig, SecretText
from metasrv.console import keys as keys_module
from metasrv.model.commands import MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.limits import (
    CONSOLE_ENTRIES_MAX,
    CONSOLE_KEY_READS_MAX,
    CONSOLE_KEYS_SECONDS_MAX,
    CONSOLE_VALUE_SIZE_BYTES_MAX,
)
from metasrv.node.context import NodeContext
from metasrv.state.key_tree import key_tree
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status

TOKEN = "operate-0123456789abcdef"


class Admin:
    """The application over a state that takes writes."""

    def __init__(self, machine: StateMachine, directory: Path, **keys: Any) -> None:
        config = Config(raft_config=RaftConfig(id=1, raft_dir=str(directory)), **keys)
        self.context: NodeContext
        self.context, self.consensus = fake_context(machine, config, leader_status(), commits=True)
        transport = httpx.ASGITransport(create_app(self.context), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=headers)

    async def put(self, key: str, value: bytes) -> None:
        await self.consensus.propose(Upsert(key, MatchSeq(MatchKind.ANY), Operation.UPDATE, value), 1_000)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[StateMachine]:
    opened = StateMachine.open(str(tmp_path / "state.db"))
    yield opened
    opened.close()


def assert_problem(answer: httpx.Response, status: int, detail: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert detail in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/console", "/v1/console/history", "/v1/events"])
async def test_answers_are_fresh_json(machine: StateMachine, tmp_path: Path, path: str) -> None:
    answer = await Admin(machine, tmp_path).get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_runbooks_are_markdown(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path)
    answer = await admin.get("/v1/runbooks/no-leader")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    assert answer.text.startswith("# No leader")
    assert_problem(await admin.get("/v1/runbooks/nowhere"), 404, "no such runbook")


async def test_every_fault_is_a_problem(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path, admin_token=SecretText(TOKEN), admin_open_routes=("probes",))
    answer = await admin.get("/v1/console")
    assert_problem(answer, 401, "needs a token")
    assert answer.headers["www-authenticate"] == "Bearer"
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    assert_problem(await admin.get("/v1/console/nowhere", **allowed), 404, "not found")
    assert_problem(await admin.client.post("/v1/events", headers=allowed), 405, "method not allowed")
    assert_problem(await admin.get("/v1/events", Host="evil.example"), 421, "not known under the name")
    admin.consensus.status_failure = RuntimeError("broken")
    assert_problem(await admin.get("/v1/console", **allowed), 500, "internal error: RuntimeError: broken")
    assert (await admin.get("/v1/cluster/status")).headers["content-type"].startswith("text/plain"), "others stay text"


@pytest.mark.parametrize("query", ["limit=x", "since_ms=-1", "limit=0", "node=1&node=2", "limit=999999999", "%ff"])
async def test_no_query_is_an_error(machine: StateMachine, tmp_path: Path, query: str) -> None:
    assert (await Admin(machine, tmp_path).get(f"/v1/events?{query}")).status_code == 200


# ----------------------------------------------------------------------------- keys


async def test_keys_are_shown_only_behind_their_switch(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path)
    for path in ("/v1/console/keys", "/v1/console/key?key=a"):
        assert_problem(await admin.get(path), 403, "`admin_key_browser = true`")


async def test_keys_need_the_scope_although_status_is_open(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path, admin_key_browser=True, admin_token=SecretText(TOKEN))
    assert (await admin.get("/v1/console")).status_code == 200
    for path in ("/v1/console/keys", "/v1/console/key?key=a"):
        assert_problem(await admin.get(path), 401, "scope read")
    assert (await admin.get("/v1/console/keys", Authorization=f"Bearer {TOKEN}")).status_code == 200


async def test_a_level_of_the_tree_and_a_record(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path, admin_key_browser=True)
    for key in ("a", "dir/x", "dir/y", "z"):
        await admin.put(key, b"1234")
    level = (await admin.get("/v1/console/keys")).json()
    assert level["prefixes"] == [{"prefix": "dir/", "keys": 2, "bytes": 2 * (5 + 4)}]
    assert [(record["key"], record["size_bytes"]) for record in level["records"]] == [("a", 4), ("z", 4)]
    assert level["more"] is False
    below = (await admin.get("/v1/console/keys?prefix=dir/")).json()
    assert [record["key"] for record in below["records"]] == ["dir/x", "dir/y"]
    record = (await admin.get("/v1/console/key?key=dir/x")).json()
    assert (record["key"], record["size_bytes"], record["truncated"]) == ("dir/x", 4, False)
    assert (base64.b64decode(record["value_base64"]), record["expires_at_ms"]) == (b"1234", None)
    assert set(record["meta"]) == {"expire_at", "proposed_at_ms"}
    assert_problem(await admin.get("/v1/console/key?key=nowhere"), 404, "no such record")
    assert_problem(await admin.get("/v1/console/key"), 400, "no `key`")


async def test_a_large_value_is_cut(machine: StateMachine, tmp_path: Path) -> None:
    admin = Admin(machine, tmp_path, admin_key_browser=True)
    for extra, truncated in ((0, False), (1, True)):
        await admin.put("k", b"x" * (CONSOLE_VALUE_SIZE_BYTES_MAX + extra))
        record = (await admin.get("/v1/console/key?key=k")).json()
        assert record["truncated"] is truncated
        assert len(base64.b64decode(record["value_base64"])) == CONSOLE_VALUE_SIZE_BYTES_MAX
        assert record["size_bytes"] == CONSOLE_VALUE_SIZE_BYTES_MAX + extra


async def test_an_answer_is_bounded_in_entries_and_in_time(
    machine: StateMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin(machine, tmp_path, admin_key_browser=True)
    for number in range(CONSOLE_ENTRIES_MAX):
        await admin.put(f"{number:05}", b"")
    level = (await admin.get("/v1/console/keys")).json()
    assert (len(level["records"]), level["more"]) == (CONSOLE_ENTRIES_MAX, False)
    await admin.put("x", b"")
    level = (await admin.get("/v1/console/keys")).json()
    assert (len(level["records"]), level["more"]) == (CONSOLE_ENTRIES_MAX, True)
    moments = iter([0.0, 0.0, CONSOLE_KEYS_SECONDS_MAX + 1])
    monkeypatch.setattr(keys_module, "monotonic", lambda: next(moments))
    level = (await admin.get("/v1/console/keys")).json()
    assert (len(level["records"]), level["more"]) == (1, True)


async def test_one_read_too_many_is_refused(
    machine: StateMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin(machine, tmp_path, admin_key_browser=True)
    busy: list[int] = []
    real = key_tree

    def counted(*arguments: Any) -> Any:
        busy.append(1)
        return real(*arguments)

    monkeypatch.setattr(keys_module, "key_tree", counted)
    monkeypatch.setattr(keys_module, "CONSOLE_KEY_READS_MAX", 0)
    assert_problem(await admin.get("/v1/console/keys"), 503, "reads of the key browser are under way")
    assert not busy
    monkeypatch.setattr(keys_module, "CONSOLE_KEY_READS_MAX", CONSOLE_KEY_READS_MAX)
    assert (await admin.get("/v1/console/keys")).status_code == 200
