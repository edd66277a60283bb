"""Users beyond root: how they log in, what each method lets them do, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.config.model import SecretText
from metasrv.grpc_api.guessing import Attempt
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.rights import check_methods
from metasrv.model.commands import TOKEN_KEY_NAME, ReplaceSecret
from metasrv.model.errors import InvariantError
from metasrv.model.passwords import hash_password
from metasrv.model.users import Grant, Right, User, secret_name, user_out
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import AbortedCall, MethodBench

HASH = hash_password("open")
GRANTS = (Grant(Right.READ, "shared/"), Grant(Right.WRITE, "app/"))


class Bench(MethodBench):
    """A node with a password, whose users a test sets."""

    async def set_user(
        self, grants: tuple[Grant, ...] = GRANTS, generation: str = "1", password: str | None = HASH, name: str = "app"
    ) -> None:
        await self.put_secret(secret_name(name), user_out(User(name, password, generation, grants)))

    async def put_secret(self, name: str, secret: bytes | None) -> None:
        await self.consensus.propose(ReplaceSecret(name, self.machine.secrets.get(name), secret), 1000)

    async def log_in(self, username: str = "app", password: str = "open") -> None:
        await self.handshake(username=username, password=password)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, grpc_password=SecretText("sesame"))
    await made.handshake(password="sesame")
    await made.set_user()
    yield made
    await made.close()


async def refusal(bench: MethodBench, method: m.Method, request: Any) -> AbortedCall:
    with pytest.raises(AbortedCall) as caught:
        await bench.call(method, request)
    return caught.value


# ----------------------------------------------------------------------------- logging in


async def test_a_user_logs_in_with_its_password_alone(bench: Bench) -> None:
    await bench.log_in()
    await bench.put("app/k")
    for username, password in (("app", "sesame"), ("app", ""), ("eve", "open"), ("root", "open")):
        with pytest.raises(AbortedCall, match=f"Wrong password of user: {username}") as caught:
            await bench.log_in(username, password)
        assert caught.value.code is StatusCode.UNAUTHENTICATED


async def test_a_user_that_does_not_exist_costs_as_much_as_one_that_does(bench: Bench) -> None:
    passwords = bench.service._authenticator._passwords
    for username in ("app", "eve"):
        before = passwords.computed
        with pytest.raises(AbortedCall):
            await bench.log_in(username, "wrong")
        assert passwords.computed == before + 1


async def test_a_user_without_a_password_cannot_log_in_by_one(bench: Bench) -> None:
    await bench.set_user(password=None)
    for password in ("", "open"):
        with pytest.raises(AbortedCall, match="Wrong password of user: app"):
            await bench.log_in(password=password)


async def test_a_user_that_cannot_be_read_cannot_log_in(bench: Bench) -> None:
    await bench.put_secret(secret_name("app"), b"odd")
    with pytest.raises(AbortedCall, match="Wrong password of user: app"):
        await bench.log_in()


async def test_another_password_of_root_ends_the_tokens_of_all(bench: Bench) -> None:
    await bench.log_in()
    await bench.put("app/k")
    bench.service._authenticator.set_password("sesame")
    await bench.put("app/k")
    bench.service._authenticator.set_password("new")
    assert "token verify failed" in (await refusal(bench, m.TRANSACTION, pb.TxnRequest())).details
    await bench.log_in()
    await bench.put("app/k")
    await bench.handshake(password="new")
    await bench.put("k")


async def test_a_password_that_changes_while_it_is_compared_opens_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = bench.service._authenticator

    async def is_right(given: str, expected: str, _attempt: Attempt) -> bool:
        authenticator.set_password("new")
        return given == expected

    monkeypatch.setattr(authenticator._passwords, "is_right", is_right)
    with pytest.raises(AbortedCall, match="the password was changed during the handshake") as caught:
        await bench.handshake(password="sesame")
    assert caught.value.code is StatusCode.UNAUTHENTICATED


async def test_the_token_of_a_user_expires(bench: Bench) -> None:
    await bench.log_in()
    bench.clock.advance(24 * 3600 + 1)
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.details == "token verify failed: the token is expired"


async def test_users_need_a_password_of_root_and_tokens_for_every_method(tmp_path: Path) -> None:
    bench = Bench(tmp_path, grpc_require_token="upstream")
    await bench.handshake()
    await bench.put("k")
    await bench.set_user()
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert (refused.code, "no grpc_password" in refused.details) == (StatusCode.UNAUTHENTICATED, True)
    with pytest.raises(AbortedCall, match="no grpc_password: root cannot log in here"):
        await bench.handshake()
    bench.token = b""
    for method in (m.WATCH, m.EXPORT, m.EXPORT_V1, m.SNAPSHOT_KEYS_LAYOUT, m.GET_CLUSTER_STATUS, m.GET_CLIENT_INFO):
        assert (await refusal(bench, method, method.request())).details == "Error auth-token-bin is empty"
    await bench.log_in()
    await bench.put("app/k")
    await bench.close()


async def test_another_key_for_tokens_ends_them_all(bench: Bench) -> None:
    tokens = []
    for username, password in (("root", "sesame"), ("app", "open")):
        await bench.log_in(username, password)
        await bench.put("app/k")
        tokens.append(bench.token)
    await bench.put_secret(TOKEN_KEY_NAME, b"another key")
    for bench.token in tokens:
        refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
        assert refused.details == "token verify failed: the signature does not match"
    await bench.log_in()
    await bench.put("app/k")


# ----------------------------------------------------------------------------- certificates


async def log_in_by_certificate(bench: Bench, names: tuple[str, ...], username: str, password: str = "") -> None:
    user = pb.BasicAuth(username=username, password=password)
    request = pb.HandshakeRequest(payload=user.SerializeToString())
    certificate = {"subject": tuple((("commonName", name),) for name in names)}
    (data,) = (await bench.call(m.HANDSHAKE, request, certificate=certificate)).sent
    bench.token = pb.HandshakeResponse.FromString(data).payload


async def test_a_certificate_stands_for_the_password_of_its_user(bench: Bench) -> None:
    await bench.set_user(password=None)
    await log_in_by_certificate(bench, ("app",), "app")
    await bench.put("app/k")
    assert (await refusal(bench, m.EXPORT, pb.Empty())).code is StatusCode.PERMISSION_DENIED
    await log_in_by_certificate(bench, ("root",), "root")
    assert (await bench.call(m.EXPORT, pb.Empty())).sent


@pytest.mark.parametrize(
    ("names", "username"),
    [(("eve",), "eve"), (("app",), "root"), (("eve",), "app"), (("app", "eve"), "app"), ((), "app"), (("",), "")],
)
async def test_it_stands_for_no_other(bench: Bench, names: tuple[str, ...], username: str) -> None:
    with pytest.raises(AbortedCall, match="Wrong password of user"):
        await log_in_by_certificate(bench, names, username)


async def test_with_a_certificate_another_user_needs_its_password(bench: Bench) -> None:
    await log_in_by_certificate(bench, ("eve",), "app", "open")
    assert await bench.put("app/k") == 1


# ----------------------------------------------------------------------------- rights


def put(key: str) -> pb.TxnOp:
    return pb.TxnOp(put=pb.TxnPutRequest(key=key, value=b"v"))


def get(key: str) -> pb.TxnOp:
    return pb.TxnOp(get=pb.TxnGetRequest(key=key))


def raft(request: Any) -> pb.RaftRequest:
    return pb.RaftRequest(data=json.dumps(request))


def upsert(key: str) -> pb.RaftRequest:
    return raft({"UpsertKV": {"key": key, "seq": "Any", "value": {"Update": [1]}, "value_meta": None}})


def predicate(*conditions: pb.TxnCondition) -> pb.BooleanExpression:
    inner = pb.BooleanExpression(conditions=conditions)
    return pb.BooleanExpression(sub_expressions=[pb.BooleanExpression(sub_expressions=[inner])])


def branch(*operations: pb.TxnOp, when: pb.TxnCondition | None = None) -> pb.ConditionalOperation:
    return pb.ConditionalOperation(predicate=None if when is None else predicate(when), operations=operations)


ALLOWED: list[tuple[m.Method, Any]] = [
    (m.KV_API, upsert("app/k")),
    (m.KV_READ_V1, raft({"GetKV": {"key": "shared/k"}})),
    (m.KV_READ_V1, raft({"MGetKV": {"keys": ["shared/k", "app/k"]}})),
    (m.KV_READ_V1, raft({"ListKV": {"prefix": "shared/"}})),
    (m.KV_LIST, pb.KvListRequest(prefix="app/sub")),
    (m.KV_GET_MANY, [pb.KvGetManyRequest(key="app/k"), pb.KvGetManyRequest(key="shared/k")]),
    (m.TRANSACTION, pb.TxnRequest()),
    (m.TRANSACTION, pb.TxnRequest(condition=[pb.TxnCondition(key="shared/k", seq=0)], if_then=[put("app/k")])),
    (m.TRANSACTION, pb.TxnRequest(condition=[pb.TxnCondition(key="shared/", keys_with_prefix=0)])),
    (m.TRANSACTION, pb.TxnRequest(operations=[branch(get("shared/k"), put("app/k"))])),
    (m.KV_TRANSACTION, pb.KvTransactionRequest(branches=[branch(put("app/k"))])),
    (m.MEMBER_LIST, pb.MemberListRequest()),
    (m.GET_CLUSTER_STATUS, pb.Empty()),
    (m.GET_CLIENT_INFO, pb.Empty()),
]
KEY = "'other/k'"
WRITE = "user app has no right to write"
READ = "user app has no right to read"
REFUSED: list[tuple[m.Method, Any, str]] = [
    (m.KV_API, upsert("other/k"), f"{WRITE} the key {KEY}"),
    (m.KV_API, upsert("shared/k"), f"{WRITE} the key 'shared/k'"),
    (m.KV_READ_V1, raft({"GetKV": {"key": "other/k"}}), f"{READ} the key {KEY}"),
    (m.KV_READ_V1, raft({"MGetKV": {"keys": ["app/k", "other/k"]}}), f"{READ} the key {KEY}"),
    (m.KV_READ_V1, raft({"ListKV": {"prefix": "app"}}), f"{READ} the prefix 'app'"),
    (m.KV_READ_V1, raft({"ListKV": {"prefix": ""}}), f"{READ} the prefix ''"),
    (m.KV_LIST, pb.KvListRequest(prefix="shared"), f"{READ} the prefix 'shared'"),
    (m.KV_GET_MANY, [pb.KvGetManyRequest(key="app/k"), pb.KvGetManyRequest(key="other/k")], f"{READ} the key {KEY}"),
    (m.TRANSACTION, pb.TxnRequest(if_then=[put("shared/k")]), f"{WRITE} the key 'shared/k'"),
    (m.TRANSACTION, pb.TxnRequest(else_then=[put("other/k")]), f"{WRITE} the key {KEY}"),
    (m.TRANSACTION, pb.TxnRequest(if_then=[get("other/k")]), f"{READ} the key {KEY}"),
    (m.TRANSACTION, pb.TxnRequest(if_then=[pb.TxnOp()]), f"{READ} the key ''"),
    (m.TRANSACTION, pb.TxnRequest(condition=[pb.TxnCondition(key="other/k", seq=0)]), f"{READ} the key {KEY}"),
    (
        m.TRANSACTION,
        pb.TxnRequest(condition=[pb.TxnCondition(key="shared", keys_with_prefix=0)]),
        f"{READ} the prefix 'shared'",
    ),
    (
        m.TRANSACTION,
        pb.TxnRequest(if_then=[pb.TxnOp(delete=pb.TxnDeleteRequest(key="other/k"))]),
        f"{WRITE} the key {KEY}",
    ),
    (
        m.TRANSACTION,
        pb.TxnRequest(if_then=[pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="app"))]),
        f"{WRITE} the prefix 'app'",
    ),
    (
        m.TRANSACTION,
        pb.TxnRequest(if_then=[pb.TxnOp(fetch_increase_u64=pb.FetchIncreaseU64(key="shared/n", delta=1))]),
        f"{WRITE} the key 'shared/n'",
    ),
    (
        m.TRANSACTION,
        pb.TxnRequest(if_then=[pb.TxnOp(put_sequential=pb.PutSequential(prefix="app/", sequence_key="other/k"))]),
        f"{WRITE} the key {KEY}",
    ),
    (
        m.TRANSACTION,
        pb.TxnRequest(if_then=[pb.TxnOp(put_sequential=pb.PutSequential(prefix="app", sequence_key="app/n"))]),
        f"{WRITE} the prefix 'app'",
    ),
    (m.TRANSACTION, pb.TxnRequest(operations=[branch(put("app/k")), branch(put("other/k"))]), f"{WRITE} the key {KEY}"),
    (
        m.TRANSACTION,
        pb.TxnRequest(operations=[branch(when=pb.TxnCondition(key="other/k", seq=0))]),
        f"{READ} the key {KEY}",
    ),
    (m.KV_TRANSACTION, pb.KvTransactionRequest(branches=[branch(put("other/k"))]), f"{WRITE} the key {KEY}"),
    (
        m.KV_TRANSACTION,
        pb.KvTransactionRequest(branches=[branch(when=pb.TxnCondition(key="other/k", value=b"x"))]),
        f"{READ} the key {KEY}",
    ),
    (m.MIGRATE, pb.MigrateRequest(), f"{WRITE} the prefix ''"),
    (m.EXPORT, pb.Empty(), f"{READ} the prefix ''"),
    (m.EXPORT_V1, pb.ExportRequest(), f"{READ} the prefix ''"),
    (m.SNAPSHOT_KEYS_LAYOUT, pb.KeysLayoutRequest(), f"{READ} the prefix ''"),
    (m.WATCH, pb.WatchRequest(key="other/k"), f"{READ} the key {KEY}"),
    (m.WATCH, pb.WatchRequest(key="app/", key_end="app1"), f"{READ} the keys from 'app/' to 'app1'"),
    (m.WATCH, pb.WatchRequest(key="", key_end="\U0010ffff"), f"{READ} the keys from '' to"),
    (m.WATCH, pb.WatchRequest(key="shared", key_end="shared0"), f"{READ} the keys from 'shared' to 'shared0'"),
]


@pytest.mark.parametrize(("method", "request_"), ALLOWED)
async def test_what_the_rights_cover_is_done(bench: Bench, method: m.Method, request_: Any) -> None:
    await bench.log_in()
    call = await bench.call(method, request_)
    assert method.kind is not m.Kind.UNARY or call.sent


@pytest.mark.parametrize(("method", "request_", "text"), REFUSED)
async def test_what_they_do_not_cover_is_refused_and_nothing_is_done(
    bench: Bench, method: m.Method, request_: Any, text: str
) -> None:
    await bench.log_in()
    before = bench.machine.last_seq
    refused = await refusal(bench, method, request_)
    assert refused.code is StatusCode.PERMISSION_DENIED
    assert refused.details.startswith(text)
    assert bench.machine.last_seq == before


async def test_requests_that_cannot_be_read_are_told_so(bench: Bench) -> None:
    await bench.log_in()
    assert (await refusal(bench, m.KV_API, pb.RaftRequest(data="{"))).code is StatusCode.INTERNAL
    assert (await refusal(bench, m.KV_READ_V1, pb.RaftRequest(data="{"))).code is StatusCode.INVALID_ARGUMENT


async def test_a_right_on_everything_covers_exports(bench: Bench) -> None:
    await bench.set_user((Grant(Right.READ, ""),))
    await bench.log_in()
    for method in (m.EXPORT, m.EXPORT_V1, m.SNAPSHOT_KEYS_LAYOUT):
        await bench.call(method, method.request())
    exported = b"".join((await bench.call(m.EXPORT, pb.Empty())).sent)
    assert b"scrypt" not in exported
    assert b"user/app" not in exported


ARCHIVE = (m.EXPORT_METADATA_KEY, m.ARCHIVE_EXPORT)
WITH_SECRETS = (m.SECRETS_METADATA_KEY, m.INCLUDE_SECRETS)


async def archived(bench: MethodBench, *metadata: tuple[str, str]) -> bytes:
    """The lines of ExportV1 with these metadata."""
    return b"".join((await bench.call(m.EXPORT_V1, pb.ExportRequest(), metadata)).sent)


async def test_an_archive_has_secrets_for_root_that_asks_for_them(bench: Bench) -> None:
    await bench.handshake(password="sesame")
    whole = await archived(bench, ARCHIVE, WITH_SECRETS)
    assert b'"holds_secrets":true' in whole
    assert b'{"Secret":{"name":"user/app"' in whole
    assert f'{{"Secret":{{"name":"{TOKEN_KEY_NAME}"'.encode() in whole
    for metadata in ((ARCHIVE,), (WITH_SECRETS,)):
        assert b"user/app" not in await archived(bench, *metadata)


async def test_an_archive_has_no_secrets_for_others(bench: Bench, tmp_path: Path) -> None:
    """A user that may read every key, and whoever comes where no password is asked for, or no token for an export."""
    await bench.set_user((Grant(Right.WRITE, ""),))
    await bench.log_in()
    assert b'"holds_secrets":false' in await archived(bench, ARCHIVE, WITH_SECRETS)
    for name, settings in (
        ("open", {}),
        ("upstream", {"grpc_password": SecretText("x"), "grpc_require_token": "upstream"}),
    ):
        (tmp_path / name).mkdir()
        other = Bench(tmp_path / name, **settings)
        await other.handshake(password="x")
        await other.put_secret(TOKEN_KEY_NAME + "2", b"secret")
        assert b"Secret" not in await archived(other, ARCHIVE, WITH_SECRETS)
        await other.close()


async def test_root_may_do_everything(bench: Bench) -> None:
    await bench.handshake(password="sesame")
    await bench.put("other/k")
    assert (await bench.call(m.EXPORT, pb.Empty())).sent


def test_every_method_says_what_it_needs() -> None:
    with pytest.raises(InvariantError, match=r"New has no row in grpc_api/rights\.py"):
        check_methods([m.HANDSHAKE._replace(name="New")])


# ----------------------------------------------------------------------------- its end


async def test_changes_of_rights_hold_at_once(bench: Bench) -> None:
    await bench.log_in()
    await bench.put("app/k")
    await bench.set_user((Grant(Right.READ, "app/"),))
    assert (await refusal(bench, m.TRANSACTION, pb.TxnRequest(if_then=[put("app/k")]))).code is (
        StatusCode.PERMISSION_DENIED
    )
    await bench.set_user()
    await bench.put("app/k")


async def test_ended_tokens_and_removed_users_are_refused(bench: Bench) -> None:
    await bench.log_in()
    await bench.set_user(generation="2")
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is StatusCode.UNAUTHENTICATED
    assert refused.details == "token verify failed: the tokens of user app were ended; log in again"
    await bench.log_in()
    await bench.put("app/k")
    await bench.put_secret(secret_name("app"), None)
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.details == "token verify failed: there is no user app"


async def test_an_ended_token_asks_the_leader_once_until_a_user_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.log_in()
    await bench.set_user(generation="2")
    barriers = 0
    read_barrier = bench.consensus.read_barrier

    async def counted(timeout_ms: int) -> None:
        nonlocal barriers
        barriers += 1
        await read_barrier(timeout_ms)

    monkeypatch.setattr(bench.consensus, "read_barrier", counted)
    for _ in range(50):
        refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
        assert "the tokens of user app were ended" in refused.details
    assert barriers == 1
    await bench.set_user(generation="3")
    await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert barriers == 2
    await bench.set_user(generation="1")  # as a backup may bring it back
    await bench.put("app/k")


async def open_watch(bench: Bench) -> asyncio.Task[Any]:
    task = asyncio.create_task(bench.call(m.WATCH, pb.WatchRequest(key="app/", key_end="app0")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.machine.watches.count == 1
    return task


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"grants": (Grant(Right.READ, "shared/"),)}, StatusCode.PERMISSION_DENIED),
        ({"generation": "2"}, StatusCode.UNAUTHENTICATED),
        (None, StatusCode.UNAUTHENTICATED),
    ],
)
async def test_what_is_open_ends(bench: Bench, change: dict[str, Any] | None, code: StatusCode) -> None:
    await bench.log_in()
    watch = await open_watch(bench)
    dispatcher = bench.service._dispatcher
    await bench.set_user((*GRANTS, Grant(Right.READ, "more/")))
    dispatcher.end_refused_streams()
    await asyncio.sleep(0)
    assert not watch.done(), "the rights still cover it"
    if change is None:
        await bench.put_secret(secret_name("app"), None)
    else:
        await bench.set_user(**change)
    dispatcher.end_refused_streams()
    with pytest.raises(AbortedCall) as caught:
        await watch
    assert caught.value.code is code
    assert (dispatcher._open, dispatcher._refused, bench.machine.watches.count) == ({}, {}, 0)


async def test_the_streams_of_root_go_on(bench: Bench) -> None:
    await bench.handshake(password="sesame")
    watch = await open_watch(bench)
    await bench.put_secret(secret_name("app"), None)
    bench.service._dispatcher.end_refused_streams()
    await asyncio.sleep(0)
    assert not watch.done()
    bench.service._dispatcher.end_streams()
    with pytest.raises(AbortedCall, match="shutting down"):
        await watch


async def test_keys_of_an_open_call_are_looked_at_one_by_one(bench: Bench) -> None:
    await bench.log_in()

    async def keys() -> AsyncIterator[Any]:
        yield pb.KvGetManyRequest(key="app/k")
        await bench.set_user(())
        yield pb.KvGetManyRequest(key="app/k")

    with pytest.raises(AbortedCall, match="user app has no right to read the key 'app/k'"):
        await bench.call(m.KV_GET_MANY, keys())
