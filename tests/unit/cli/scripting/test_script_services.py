"""What scripts ask of a cluster: which call each method makes, the tree it answers with, and errors as sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from metasrv.cli.ctl_admin import AdminClient, AdminError
from metasrv.cli.scripting.services import Answer, Services
from metasrv.client import AsyncClient, Transaction
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, NotDoneError
from metasrv.model.types import KVMeta, SeqV

RECORD = SeqV(3, b"\x00v", KVMeta(None, 7))
RECORD_TREE = {"seq": 3, "meta": {"proposed_at_ms": 7}, "data": b"\x00v"}


class FakeClient:
    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked
        self.reply = c.TransactionReply(False, (), "else")

    async def get(self, key: str) -> SeqV | None:
        self.asked.append(("get", key))
        return RECORD if key == "k" else None

    async def upsert(self, key: str, value: bytes) -> c.UpsertReply:
        self.asked.append(("upsert", key, value))
        return c.UpsertReply(None, SeqV(4, value, None))

    async def transaction(self, transaction: Transaction) -> c.TransactionReply:
        self.asked.append(transaction.request)
        return self.reply

    async def close(self) -> None:
        self.asked.append("closed")


class FakeAdmin:
    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    def json(self, path: str, members: tuple[str, ...], **query: object) -> dict[str, Any]:
        self.asked.append((path, query))
        if path.endswith("set"):
            raise AdminError(400, "no such feature")
        return dict.fromkeys(members, 1)

    def text(self, path: str, **query: object) -> str:
        self.asked.append((path, query))
        return "metric 1\n"


class Bench:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.client = FakeClient(self.asked)
        self.connected: list[str] = []

    def connect(self, address: str) -> AsyncClient:
        if address == "bad":
            raise InvalidRequestError("'bad' is not host:port")
        self.connected.append(address)
        return cast(AsyncClient, self.client)

    def ask(self, *calls: tuple[Any, ...]) -> list[Answer]:
        async def run() -> list[Answer]:
            services = Services(self.connect, lambda _address: cast(AdminClient, FakeAdmin(self.asked)))
            answers = [await services.call(*call) for call in calls]
            await services.close()
            return answers

        return asyncio.run(run())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    async def at_once(call: Callable[[], Any]) -> Any:
        return call()

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    return Bench()


def test_keys(bench: Bench) -> None:
    answers = bench.ask(
        ("grpc", 1, b"h:1", "get", b"k"),
        ("grpc", 1, b"h:1", "get", b"none"),
        ("grpc", 2, b"h:1", "upsert", "ä".encode(), b"\xff"),
        ("grpc", 1, b"h:1", "get", b"\xff"),
        ("grpc", 3, b"bad", "get", b"k"),
    )
    assert answers == [
        (RECORD_TREE, None),
        (None, None),
        ({"ident": None, "prev": None, "result": {"seq": 4, "meta": None, "data": b"\xff"}}, None),
        (None, "gRPC error: a key must be UTF-8"),
        (None, "gRPC error: 'bad' is not host:port"),
    ]
    assert bench.asked == [("get", "k"), ("get", "none"), ("upsert", "ä", b"\xff"), "closed", "closed"]
    assert bench.connected == ["h:1", "h:1"], "one connection for each client of the script"


def test_transactions(bench: Bench) -> None:
    bench.client.reply = c.TransactionReply(
        True, (c.PutResponse("k", None, RECORD), c.GetResponse("k", RECORD), c.DeleteResponse("k", True, RECORD)), "then"
    )
    operation = {b"op": b"get", b"key": b"k"}
    ok, wrong = bench.ask(
        ("grpc", 1, b"h:1", "transaction", {b"then": {1: operation}}), ("grpc", 1, b"h:1", "transaction", {b"x": 1})
    )
    assert ok == (
        {
            "success": True,
            "execution_path": "then",
            "responses": [
                {"response": {"Put": {"key": "k", "prev_value": None, "current": RECORD_TREE}}},
                {"response": {"Get": {"key": "k", "value": RECORD_TREE}}},
                {"response": {"Delete": {"key": "k", "success": True, "prev_value": RECORD_TREE}}},
            ],
        },
        None,
    )
    assert wrong == (None, "Invalid transaction: transaction: unknown field `x`")
    assert bench.asked[0] == Transaction().get("k").request
    bench.client.reply = c.TransactionReply(True, (c.DeleteByPrefixResponse("p", 1),), "then")
    (other,) = bench.ask(("grpc", 1, b"h:1", "transaction", {}))
    assert other == (None, "gRPC error: the server answered with DeleteByPrefixResponse, which was not asked for")


def test_a_call_that_failed_is_a_sentence(bench: Bench) -> None:
    async def fails(_key: str) -> None:
        raise NotDoneError("no leader")

    bench.client.get = fails  # type: ignore[method-assign,assignment]
    assert bench.ask(("grpc", 1, b"h:1", "get", b"k")) == [(None, "gRPC error: no leader")]


def test_the_admin_api(bench: Bench) -> None:
    answers = bench.ask(
        ("admin", 1, b"h:2", "metrics"),
        ("admin", 1, b"h:2", "status"),
        ("admin", 1, b"h:2", "transfer_leader"),
        ("admin", 1, b"h:2", "transfer_leader", 2.0),
        ("admin", 1, b"h:2", "transfer_leader", 2.5),
        ("admin", 1, b"h:2", "trigger_snapshot"),
        ("admin", 1, b"h:2", "list_features"),
        ("admin", 1, b"h:2", "set_feature", b"dummy", True),
    )
    assert [problem for _value, problem in answers] == [
        *[None] * 4,
        "Admin API error: 2.5 is no node id",
        *[None] * 2,
        "Admin API error: status code: 400, msg: no such feature",
    ]
    assert answers[0][0] == "metric 1\n"
    assert answers[5][0] is True
    assert bench.asked == [
        ("/v1/metrics", {}),
        ("/v1/cluster/status", {}),
        ("/v1/ctrl/trigger_transfer_leader", {"to": None}),
        ("/v1/ctrl/trigger_transfer_leader", {"to": 2}),
        ("/v1/ctrl/trigger_snapshot", {}),
        ("/v1/features/list", {}),
        ("/v1/features/set", {"feature": "dummy", "enable": "true"}),
    ]
