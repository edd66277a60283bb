"""The routes about users: every change, who may make it, and what is never shown."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig
from metasrv.model.commands import (
    TOKEN_KEY_NAME,
    Command,
    ReplaceSecret,
    ReplaceSecretReply,
    Reply,
    SetClusterSecret,
    SetFeature,
)
from metasrv.model.errors import NotDoneError, UnknownOutcomeError
from metasrv.model.limits import TOKEN_KEY_SIZE_BYTES, USERS_MAX
from metasrv.model.users import User, secret_name, user_in, user_names, user_out
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status

HASH = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$" + "A" * 43
OTHER_HASH = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$" + "B" * 43
HEADERS = {"Authorization": "Bearer token", "X-Metasrv-Action": "test"}


class Admin:
    """The admin API of one node, and its state."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.machine = StateMachine.open(str(tmp_path / "state.db"))
        config = Config.model_validate(
            {"raft_config": RaftConfig(raft_dir=str(tmp_path)), "admin_token": "token", "grpc_password": "x", **settings},
            strict=False,
        )
        self.context, self.consensus = fake_context(self.machine, config, leader_status(), commits=True)
        transport = httpx.ASGITransport(create_app(self.context))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)

    async def change(self, change: str, **fields: Any) -> httpx.Response:
        return await self.client.post("/v1/users/set", json={"change": change, **fields})

    async def users(self) -> list[dict[str, Any]]:
        answer = await self.client.get("/v1/users/list")
        assert answer.status_code == 200, answer.text
        users: list[dict[str, Any]] = answer.json()["users"]
        return users

    def stored(self, name: str = "app") -> User:
        return user_in(name, self.machine.secrets[secret_name(name)])

    async def turn_on(self) -> None:
        await self.consensus.propose(SetFeature("users", True), 1000)

    async def close(self) -> None:
        await self.client.aclose()
        self.machine.close()


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    made = Admin(tmp_path)
    await made.turn_on()
    yield made
    await made.close()


async def test_a_user_from_its_beginning_to_its_end(admin: Admin) -> None:
    assert await admin.users() == []
    added = await admin.change("add", name="app", password_hash=HASH)
    assert (added.status_code, added.json()) == (200, {"name": "app", "has_password": True, "grants": []})
    for right, prefix in (("read", "b/"), ("read", "a/"), ("write", "b/")):
        assert (await admin.change("grant", name="app", right=right, prefix=prefix)).status_code == 200
    grants = [{"right": "read", "prefix": "a/"}, {"right": "write", "prefix": "b/"}]
    assert await admin.users() == [{"name": "app", "has_password": True, "grants": grants}]
    revoked = await admin.change("revoke", name="app", prefix="a/")
    assert revoked.json()["grants"] == grants[1:]
    assert (await admin.change("remove", name="app")).text == "null"
    assert await admin.users() == []


async def test_what_ends_tokens_changes_the_generation_and_nothing_else_does(admin: Admin) -> None:
    await admin.change("add", name="app")
    assert admin.stored().stored_password is None
    generations = [admin.stored().generation]
    for change, fields, ends in (
        ("grant", {"right": "read", "prefix": "a/"}, False),
        ("set-password", {"password_hash": HASH}, True),
        ("revoke", {"prefix": "a/"}, False),
        ("end-tokens", {}, True),
    ):
        assert (await admin.change(change, name="app", **fields)).status_code == 200
        generations.append(admin.stored().generation)
        assert (generations[-1] != generations[-2]) is ends, change
    assert admin.stored().stored_password == HASH
    await admin.change("remove", name="app")
    await admin.change("add", name="app")
    assert admin.stored().generation not in generations


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"change": "add", "name": "app"}, 409, "user app exists already"),
        ({"change": "add", "name": "root"}, 400, "root cannot be changed"),
        ({"change": "add", "name": "a/b"}, 400, "a user's name has letters"),
        ({"change": "add", "name": "new", "password_hash": "plain"}, 400, "a stored password has the form"),
        ({"change": "remove", "name": "nobody"}, 404, "there is no user 'nobody'"),
        ({"change": "set-password", "name": "app"}, 400, "`password_hash` is missing"),
        ({"change": "grant", "name": "app", "right": "own", "prefix": ""}, 400, "`right` is one of read, write"),
        ({"change": "grant", "name": "app", "right": "read"}, 400, "`prefix` is missing"),
        ({"change": "revoke", "name": "app", "prefix": "x"}, 404, "user app has no right on the prefix 'x' itself"),
        ({"change": "promote", "name": "app"}, 400, "`change` is one of add, remove, set-password"),
        ({"name": "app"}, 400, "`change` is one of add"),
        ({"change": "add", "name": 7}, 400, "the body is an object of texts named"),
        ({"change": "add", "nome": "x"}, 400, "the body is an object of texts named"),
        ([], 400, "the body is an object of texts named"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(admin: Admin, fields: Any, code: int, text: str) -> None:
    await admin.change("add", name="app")
    before = dict(admin.machine.secrets)
    answer = await admin.client.post("/v1/users/set", json=fields)
    assert (answer.status_code, text in answer.text) == (code, True), answer.text
    assert dict(admin.machine.secrets) == before


async def test_a_body_that_is_not_json(admin: Admin) -> None:
    for body in (b"", b"{", b"[" * 100_000):
        answer = await admin.client.post("/v1/users/set", content=body)
        assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (400, "the body is not JSON")


async def test_changes_go_by_post_alone(admin: Admin) -> None:
    answer = await admin.client.get("/v1/users/set")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_both_routes_need_the_token_and_a_change_no_page(admin: Admin) -> None:
    for header in ("", "Bearer wrong"):
        headers = {**HEADERS, "Authorization": header}
        assert (await admin.client.get("/v1/users/list", headers=headers)).status_code == 401
        assert (await admin.client.post("/v1/users/set", json={}, headers=headers)).status_code == 401
    headers = {**HEADERS, "Sec-Fetch-Site": "cross-site"}
    assert (await admin.client.post("/v1/users/set", json={}, headers=headers)).status_code == 403
    del admin.client.headers["X-Metasrv-Action"]
    assert (await admin.client.post("/v1/users/set", json={})).status_code == 403


async def test_the_feature_and_the_passwords_come_first(tmp_path: Path) -> None:
    admin = Admin(tmp_path)
    answer = await admin.change("add", name="app")
    assert (answer.status_code, "set-feature --feature users --enable true" in answer.text) == (409, True)
    await admin.close()
    admin = Admin(tmp_path, grpc_password="")
    await admin.turn_on()
    answer = await admin.change("add", name="app")
    assert (answer.status_code, "grpc_password" in answer.text) == (409, True)
    await admin.close()
    admin = Admin(tmp_path, admin_token="")
    for asked in (admin.change("add", name="app"), admin.client.get("/v1/users/list")):
        answer = await asked
        assert (answer.status_code, "admin_token" in answer.text) == (403, True)
    assert not [name for name in admin.machine.secrets if name.startswith("user/")]
    await admin.close()


async def test_there_is_a_limit(admin: Admin) -> None:
    stored = user_out(User("any", None, "abc"))
    for number in range(USERS_MAX - 1):
        await admin.consensus.propose(ReplaceSecret(secret_name(f"u{number}"), None, stored), 1000)
    assert (await admin.change("add", name="last")).status_code == 200
    answer = await admin.change("add", name="more")
    assert (answer.status_code, answer.json()["detail"]) == (409, f"there are {USERS_MAX} users already, the limit")


async def test_two_changes_at_once_do_not_mix(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    await admin.change("add", name="app")
    propose = FakeConsensus.propose
    other = user_out(admin.stored()._replace(stored_password=HASH))
    raced: list[int] = []

    async def racing(consensus: FakeConsensus, command: Any, timeout_ms: int) -> Any:
        if not raced:
            raced.append(1)
            await propose(consensus, ReplaceSecret(command.name, command.expected, other), timeout_ms)
        return await propose(consensus, command, timeout_ms)

    monkeypatch.setattr(FakeConsensus, "propose", racing)
    assert (await admin.change("grant", name="app", right="read", prefix="a/")).status_code == 200
    stored = admin.stored()
    assert (stored.stored_password, [grant.prefix for grant in stored.grants]) == (HASH, ["a/"])

    async def always(consensus: FakeConsensus, command: Any, timeout_ms: int) -> Any:
        return ReplaceSecretReply(False, b"")

    monkeypatch.setattr(FakeConsensus, "propose", always)
    answer = await admin.change("end-tokens", name="app")
    assert (answer.status_code, "5 times another change came first" in answer.text) == (500, True)


async def test_an_unknown_outcome_is_said(admin: Admin) -> None:
    admin.consensus.failure = UnknownOutcomeError("who knows")
    assert (await admin.change("add", name="app")).status_code == 500


async def test_the_key_of_tokens_is_rotated(admin: Admin) -> None:
    await admin.consensus.propose(SetClusterSecret(TOKEN_KEY_NAME, b"old"), 1000)
    answer = await admin.change("rotate-key")
    assert (answer.status_code, answer.text) == (200, "null")
    assert len(admin.machine.secrets[TOKEN_KEY_NAME]) == TOKEN_KEY_SIZE_BYTES


async def test_a_user_that_cannot_be_read_is_listed_and_can_be_removed(admin: Admin) -> None:
    await admin.consensus.propose(ReplaceSecret(secret_name("odd"), None, b"odd"), 1000)
    assert await admin.users() == [{"name": "odd", "has_password": False, "grants": []}]
    assert (await admin.change("end-tokens", name="odd")).status_code == 409
    assert (await admin.change("remove", name="odd")).status_code == 200
    assert await admin.users() == []


async def test_nothing_secret_is_shown_and_changes_are_audited(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        await admin.change("add", name="app", password_hash=HASH)
        await admin.change("grant", name="app", right="read", prefix="a/")
    listed = json.dumps(await admin.users())
    assert HASH not in caplog.text + listed
    assert admin.stored().generation not in caplog.text + listed
    lines = [json.loads(line) for line in caplog.messages]
    change = [line for line in lines if "user_change" in line][1]
    assert change["user_change"] == {"change": "grant", "name": "app", "right": "read", "prefix": "a/"}
    (call,) = [line for line in lines if line["request_id"] == change["request_id"] and line is not change]
    assert call["method"] == "POST", "the line of the call says who made the change"


class Gateways:
    """Processes that serve clients: keeps the users that they were told of."""

    configured = up = 1
    restarts = watchers = 0

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self.told: list[list[str]] = []

    async def until_told(self) -> None:
        self.told.append(sorted(user_names(self._admin.machine.secrets)))


async def test_a_change_is_answered_once_this_node_and_its_gateways_go_by_it(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateways = admin.context.gateways = Gateways(admin)
    barriers = admin.consensus.barriers
    assert (await admin.change("add", name="app", password_hash=HASH)).status_code == 200
    assert gateways.told == [["app"]]
    assert admin.consensus.barriers == barriers + 2, "one before the change, one until this node has it"
    assert (await admin.change("remove", name="nobody")).status_code == 404
    assert gateways.told == [["app"]], "nothing has changed"

    made = admin.consensus.propose

    async def propose(command: Command, timeout_ms: int) -> Reply:
        reply = await made(command, timeout_ms)
        admin.consensus.failure = NotDoneError("no majority")
        return reply

    monkeypatch.setattr(admin.consensus, "propose", propose)
    assert (await admin.change("remove", name="app")).status_code == 200
    assert gateways.told == [["app"], []]
    assert "this node does not go by it yet" in caplog.text
