"""The methods of MetaService over the real state machine, called without sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.grpc_api import kv
from metasrv.grpc_api.guessing import FREE_GUESSES, WAIT_SECONDS_MIN
from metasrv.grpc_api.http2.portions import Standing
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.leader import HINT_SECONDS
from metasrv.model import errors
from metasrv.model.commands import ErrorReply, SetQuota, SetReadOnly
from metasrv.model.limits import GRPC_READERS_MAX, KEY_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.model.passwords import hash_password
from metasrv.model.types import PeerProgress
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import MIN_CLIENT_VERSION, SERVER_VERSION
from tests.support.grpc_bench import NODES, AbortedCall, FakeCall, MethodBench

Code = StatusCode


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


async def refusal(bench: MethodBench, method: m.Method, request: Any, *metadata: tuple[str, str]) -> AbortedCall:
    with pytest.raises(AbortedCall) as caught:
        await bench.call(method, request, metadata)
    return caught.value


async def test_a_refused_request_costs_no_status_of_the_node(bench: MethodBench) -> None:
    bench.consensus.status_failure = AssertionError("the status was asked for")
    refused = await refusal(bench, m.KV_API, pb.RaftRequest(data="{}"))
    assert "neither a name nor an object" in str(refused)


# ----------------------------------------------------------------------------- handshake and tokens


async def test_the_handshake_announces_the_version_and_gives_a_token(bench: MethodBench) -> None:
    reply = await bench.handshake()
    assert reply.protocol_version == SERVER_VERSION.digit == 260629002000
    assert reply.payload.count(b".") == 2


@pytest.mark.parametrize("host", ["meta1", None])
async def test_the_handshake_says_what_the_node_is_called(tmp_path: Path, host: str | None) -> None:
    bench = MethodBench(tmp_path, grpc_api_advertise_host=host)
    call = await bench.call(m.HANDSHAKE, pb.HandshakeRequest(payload=pb.BasicAuth(username="root").SerializeToString()))
    assert call.initial == (None if host is None else {m.NODE_METADATA_KEY: "meta1:0"})
    await bench.close()


async def test_handshake_watch_and_export_name_the_cluster_once_there_is_one(bench: MethodBench) -> None:
    login = pb.HandshakeRequest(payload=pb.BasicAuth(username="root").SerializeToString())
    assert (await bench.call(m.HANDSHAKE, login)).initial is None
    bench.context.machine.set_cluster_id("c0ffee")
    for method, request in ((m.HANDSHAKE, login), (m.EXPORT_V1, pb.ExportRequest())):
        call = await bench.call(method, request)
        assert call.initial == {m.CLUSTER_METADATA_KEY: "c0ffee"}
        assert call.sent


@pytest.mark.parametrize("version", [0, MIN_CLIENT_VERSION.digit, SERVER_VERSION.digit, 2**64 - 1])
async def test_clients_from_the_oldest_on_are_let_in(bench: MethodBench, version: int) -> None:
    assert (await bench.handshake(version=version)).payload


async def test_an_older_client_is_told_what_is_needed(bench: MethodBench) -> None:
    with pytest.raises(AbortedCall) as caught:
        await bench.handshake(version=MIN_CLIENT_VERSION.digit - 1)
    assert caught.value.code is Code.INVALID_ARGUMENT
    expected = "meta-client protocol_version(1.2.675) < metasrv min-compatible(1.2.676)"
    assert caught.value.details == expected


async def test_a_handshake_without_a_message_or_with_a_broken_one(bench: MethodBench) -> None:
    refused = await refusal(bench, m.HANDSHAKE, [])
    assert (refused.code, refused.details) == (Code.INTERNAL, "Error request next is None")
    assert (await refusal(bench, m.HANDSHAKE, pb.HandshakeRequest(payload=b"\xff"))).code is Code.INTERNAL


async def test_other_users_are_unknown(bench: MethodBench) -> None:
    with pytest.raises(AbortedCall) as caught:
        await bench.handshake(username="eve")
    assert (caught.value.code, caught.value.details) == (Code.UNAUTHENTICATED, "Unknown user: eve")


async def test_a_configured_password_is_checked(tmp_path: Path) -> None:
    from metasrv.config.model import SecretText

    bench = MethodBench(tmp_path, grpc_password=SecretText("sesame"))
    for password in ("", "xxx", "sesame "):
        with pytest.raises(AbortedCall) as caught:
            await bench.handshake(password=password)
        assert caught.value.code is Code.UNAUTHENTICATED
        assert "Wrong password" in caught.value.details
    assert (await bench.handshake(password="sesame")).payload
    await bench.close()


async def test_guesses_are_slowed_by_address(tmp_path: Path) -> None:
    from metasrv.config.model import SecretText

    bench = MethodBench(tmp_path, grpc_password=SecretText("sesame"))
    for _ in range(FREE_GUESSES):
        with pytest.raises(AbortedCall, match="Wrong password of user: root"):
            await bench.handshake(password="wrong")
    with pytest.raises(AbortedCall, match="5 wrong passwords of user root in a row from this address") as caught:
        await bench.handshake(password="sesame")
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    bench.clock.advance(WAIT_SECONDS_MIN)
    assert (await bench.handshake(password="sesame")).payload
    await bench.close()


async def test_the_configured_password_may_be_a_hash(tmp_path: Path) -> None:
    from metasrv.config.model import SecretText

    bench = MethodBench(tmp_path, grpc_password=SecretText(hash_password("sesame")))
    with pytest.raises(AbortedCall, match="Wrong password of user: root"):
        await bench.handshake(password="wrong")
    for _ in range(3):
        assert (await bench.handshake(password="sesame")).payload
    assert bench.service._authenticator._passwords.computed == 2
    await bench.close()


@pytest.mark.parametrize(("password", "expires"), [("sesame", True), (None, False)])
async def test_a_token_expires_where_a_password_is_asked_for(tmp_path: Path, password: str | None, expires: bool) -> None:
    from metasrv.config.model import SecretText

    settings = {} if password is None else {"grpc_password": SecretText(password)}
    bench = MethodBench(tmp_path, **settings)
    await bench.handshake(password="sesame")
    bench.clock.advance(24 * 3600)
    await bench.put("k")
    bench.clock.advance(1)
    if expires:
        refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
        assert (refused.code, refused.details) == (Code.UNAUTHENTICATED, "token verify failed: the token is expired")
        await bench.handshake(password="sesame")
    bench.clock.advance(24 * 3600)
    await bench.put("k")
    await bench.close()


async def test_the_oldest_client_can_be_configured(tmp_path: Path) -> None:
    bench = MethodBench(tmp_path, grpc_min_client_version="260217.0.0")
    with pytest.raises(AbortedCall, match=r"min-compatible\(260217.0.0\)"):
        await bench.handshake(version=260216999999)
    await bench.close()


def test_an_impossible_oldest_client_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="grpc_min_client_version"):
        MethodBench(tmp_path, grpc_min_client_version="1.1000.0")
    for version in ("1.1000.0", "0.0.0"):
        with pytest.raises(errors.ConfigError, match="grpc_announced_version"):
            MethodBench(tmp_path, grpc_announced_version=version)


async def test_the_key_is_proposed_once_and_a_token_outlives_the_process(tmp_path: Path) -> None:
    bench = MethodBench(tmp_path)
    await bench.handshake()
    await bench.handshake()
    assert len(bench.consensus.proposals) == 1
    token = bench.token
    await bench.close()
    again = MethodBench(tmp_path)
    again.token = token
    await again.put("k")
    await again.close()


async def test_methods_that_need_a_token_say_so(bench: MethodBench) -> None:
    bench.token = b""
    for method in m.METHODS:
        if method.token:
            refused = await refusal(bench, method, method.request())
            assert refused.code is Code.UNAUTHENTICATED
            assert refused.details == "Error auth-token-bin is empty"
    bench.token = b"a.b.c"
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is Code.UNAUTHENTICATED
    assert refused.details.startswith("token verify failed: ")


@pytest.mark.parametrize(
    ("settings", "for_all"),
    [
        ({}, False),
        ({"grpc_password": "x"}, True),
        ({"grpc_password": "x", "grpc_require_token": "upstream"}, False),
        ({"grpc_require_token": "all"}, True),
    ],
)
async def test_with_a_password_every_method_needs_the_token(
    tmp_path: Path, settings: dict[str, str], for_all: bool
) -> None:
    bench = MethodBench(tmp_path, **settings)
    bench.token = b""
    for method in (m.WATCH, m.EXPORT, m.EXPORT_V1, m.SNAPSHOT_KEYS_LAYOUT, m.GET_CLUSTER_STATUS, m.GET_CLIENT_INFO):
        request = pb.WatchRequest(key="k") if method is m.WATCH else method.request()
        if for_all:
            refused = await refusal(bench, method, request)
            assert refused.details == "Error auth-token-bin is empty"
    if not for_all:
        assert (await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent
    password = settings.get("grpc_password", "xxx")
    await bench.handshake(password=password)
    assert (await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent
    await bench.close()


async def test_a_node_that_lags_learns_the_key_before_it_refuses_a_token(tmp_path: Path) -> None:
    bench = MethodBench(tmp_path)
    bench.token = b"a.b.c"
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is Code.UNAUTHENTICATED
    assert bench.consensus.barriers == 1
    await bench.close()


# ----------------------------------------------------------------------------- writes


async def test_a_transaction_and_its_reply(bench: MethodBench) -> None:
    assert await bench.put("k", b"1") == 1
    request = pb.TxnRequest(
        condition=[pb.TxnCondition(key="k", seq=9)],
        if_then=[pb.TxnOp(delete=pb.TxnDeleteRequest(key="k"))],
        else_then=[pb.TxnOp(get=pb.TxnGetRequest(key="k"))],
    )
    reply = pb.TxnReply.FromString((await bench.call(m.TRANSACTION, request)).sent[-1])
    assert (reply.success, reply.execution_path) == (False, "else")
    assert reply.responses[0].get.value.data == b"1"
    empty = pb.TxnReply.FromString((await bench.call(m.TRANSACTION, pb.TxnRequest())).sent[-1])
    assert (empty.success, empty.execution_path, len(empty.responses)) == (True, "then", 0)


async def test_a_branch_transaction(bench: MethodBench) -> None:
    put = pb.TxnOp(put=pb.TxnPutRequest(key="k", value=b"1"))
    request = pb.KvTransactionRequest(branches=[pb.ConditionalOperation(operations=[put])])
    reply = pb.KvTransactionReply.FromString((await bench.call(m.KV_TRANSACTION, request)).sent[-1])
    assert reply.HasField("executed_branch")
    assert reply.executed_branch == 0
    none = await bench.call(m.KV_TRANSACTION, pb.KvTransactionRequest())
    assert not pb.KvTransactionReply.FromString(none.sent[-1]).HasField("executed_branch")


async def test_kv_api_answers_in_json(bench: MethodBench) -> None:
    request = {"UpsertKV": {"key": "k", "seq": "Any", "value": {"Update": [49]}, "value_meta": None}}
    call = await bench.call(m.KV_API, pb.RaftRequest(data=json.dumps(request)))
    reply = pb.RaftReply.FromString(call.sent[-1])
    change = json.loads(reply.data)
    assert (change["ident"], change["prev"]) == (None, None)
    assert (change["result"]["seq"], change["result"]["data"]) == (1, [49])
    assert reply.error == ""


@pytest.mark.parametrize(("size", "fine"), [(KEY_SIZE_BYTES_MAX, True), (KEY_SIZE_BYTES_MAX + 1, False)])
async def test_keys_at_and_past_the_limit(bench: MethodBench, size: int, fine: bool) -> None:
    request = pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key="k" * size))])
    if fine:
        assert (await bench.call(m.TRANSACTION, request)).sent
        return
    refused = await refusal(bench, m.TRANSACTION, request)
    assert refused.code is Code.INVALID_ARGUMENT
    assert str(KEY_SIZE_BYTES_MAX) in refused.details
    assert len(bench.consensus.proposals) == 1, "only the token key was proposed"


async def test_values_past_the_limit(bench: MethodBench) -> None:
    put = pb.TxnPutRequest(key="k", value=bytes(VALUE_SIZE_BYTES_MAX + 1))
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest(if_then=[pb.TxnOp(put=put)]))
    assert refused.code is Code.INVALID_ARGUMENT


async def test_a_command_that_the_state_refuses_is_the_clients_fault(bench: MethodBench) -> None:
    async def refuse(command: object, timeout_ms: int) -> ErrorReply:
        return ErrorReply("this cannot be")

    bench.consensus.propose = refuse  # type: ignore[method-assign]
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert (refused.code, refused.details) == (Code.INVALID_ARGUMENT, "this cannot be")


READ_ONLY = "the cluster is read-only, an operator has turned writes off: moving"
WRITES: list[tuple[m.Method, Any]] = [
    (m.TRANSACTION, pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key="k", value=b"v"))])),
    (m.TRANSACTION, pb.TxnRequest(else_then=[pb.TxnOp(delete=pb.TxnDeleteRequest(key="absent"))])),
    (m.KV_API, pb.RaftRequest(data='{"UpsertKV":{"key":"k","seq":"Any","value":{"Update":[118]},"value_meta":null}}')),
]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("method", "request_"), WRITES)
async def test_a_read_only_cluster_refuses_every_write(
    bench: MethodBench, method: m.Method, request_: Any, early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.consensus.propose(SetReadOnly("moving"), 1000)
    if not early:
        monkeypatch.setattr(kv, "refusal_while_read_only", lambda _limits, _command: None)
    proposals, barriers = len(bench.consensus.proposals), bench.consensus.barriers
    refused = await refusal(bench, method, request_)
    assert (refused.code, refused.details) == (Code.FAILED_PRECONDITION, READ_ONLY)
    assert refused.metadata[m.OUTCOME_METADATA_KEY] == m.NOT_DONE
    assert len(bench.consensus.proposals) - proposals == (not early), "the way through the log is saved"
    assert bench.consensus.barriers - barriers == early, "a node that is behind asks first"


async def test_a_read_only_cluster_takes_transactions_that_only_read(bench: MethodBench) -> None:
    await bench.consensus.propose(SetReadOnly(""), 1000)
    reading = pb.TxnRequest(if_then=[pb.TxnOp(get=pb.TxnGetRequest(key="k"))])
    assert (await bench.call(m.TRANSACTION, reading)).sent


async def test_a_write_past_the_quota_is_refused_with_the_figures(bench: MethodBench) -> None:
    await bench.consensus.propose(SetQuota(5), 1000)
    await bench.put("a", b"1")
    put = pb.TxnPutRequest(key="b", value=bytes(10))
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest(if_then=[pb.TxnOp(put=put)]))
    assert refused.code is Code.FAILED_PRECONDITION
    assert "keys and values take 2 bytes, the limit is 5, and this write would make it 13" in refused.details


# ----------------------------------------------------------------------------- reads


async def test_reads_answer_every_key_in_order(bench: MethodBench) -> None:
    await bench.put("a", b"1")
    items = await bench.read({"MGetKV": {"keys": ["b", "a", "b", "a"]}})
    assert [item.key for item in items] == ["b", "a", "b", "a"]
    assert [item.HasField("value") for item in items] == [False, True, False, True]
    (item,) = await bench.read({"GetKV": {"key": "a"}})
    assert item.value.data == b"1"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 128, 129, 700])
async def test_lists_and_gets_of_any_length(bench: MethodBench, count: int) -> None:
    keys = [f"p/{i:05}" for i in range(count)]
    for start in range(0, count, 100):
        puts = [pb.TxnOp(put=pb.TxnPutRequest(key=key, value=b"v")) for key in keys[start : start + 100]]
        await bench.transact(*puts)
    await bench.put("q", b"other")
    assert [item.key for item in await bench.read({"ListKV": {"prefix": "p/"}})] == keys
    wanted = [*reversed(keys), "absent", keys[0]]
    assert [item.key for item in await bench.read({"MGetKV": {"keys": wanted}})] == wanted
    for limit in (0, 1, 8, 128, 129, count, count + 1):
        call = await bench.call(m.KV_LIST, pb.KvListRequest(prefix="p/", limit=limit))
        assert [pb.StreamItem.FromString(data).key for data in call.sent] == keys[:limit]
    unlimited = await bench.call(m.KV_LIST, pb.KvListRequest(prefix=""))
    assert len(unlimited.sent) == count + 1
    assert bench.service._readers.open_count == 0


@pytest.mark.parametrize("count", [2, 12])
async def test_lists_of_large_values_are_read_outside_of_the_loop(bench: MethodBench, count: int) -> None:
    for i in range(count):
        await bench.put(f"large/{i:02}", bytes(600_000))
    items = await bench.read({"ListKV": {"prefix": "large/"}})
    assert [len(item.value.data) for item in items] == [600_000] * count
    wanted = [f"large/{i:02}" for i in range(count)]
    assert [item.key for item in await bench.read({"MGetKV": {"keys": wanted}})] == wanted


async def test_the_clock_of_the_node_that_answers_plays_no_part(
    bench: MethodBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's clock is two minutes ahead of the leader's, which has deleted nothing yet."""
    await bench.put("soon", b"1", expire_at=bench.context.clock.wall_ms() + 5_000)
    monkeypatch.setattr(bench.consensus, "read_barrier", AsyncMock())
    bench.clock.advance(120)
    assert [item.key for item in await bench.read({"ListKV": {"prefix": ""}})] == ["soon"]
    (soon,) = await bench.read({"MGetKV": {"keys": ["soon"]}})
    assert soon.HasField("value")
    (stale,) = await bench.read({"MGetKV": {"keys": ["soon"]}}, ("x-metasrv-read", "stale"))
    assert not stale.HasField("value"), "a stale read knows no other clock"


async def test_expired_records_are_hidden(bench: MethodBench) -> None:
    now_ms = bench.context.clock.wall_ms()
    await bench.put("soon", b"1", expire_at=now_ms + 5_000)
    await bench.put("later", b"1", expire_at=now_ms + 1_000_000)
    bench.clock.advance(10)
    assert [item.key for item in await bench.read({"ListKV": {"prefix": ""}})] == ["later"]
    soon, later = await bench.read({"MGetKV": {"keys": ["soon", "later"]}})
    assert (soon.HasField("value"), later.HasField("value")) == (False, True)


async def test_reads_wait_for_the_barrier_unless_they_may_be_stale(bench: MethodBench) -> None:
    before = bench.consensus.barriers
    await bench.read({"GetKV": {"key": "a"}})
    assert bench.consensus.barriers == before + 1
    await bench.read({"GetKV": {"key": "a"}}, ("x-metasrv-read", "stale"))
    assert bench.consensus.barriers == before + 1


async def test_large_reads_are_bounded_in_number(bench: MethodBench) -> None:
    opened = []
    for number in range(GRPC_READERS_MAX):
        call = FakeCall()
        call.host, call.proved = f"10.0.0.{number}", Standing.MEMBER
        opened.append(bench.service._readers.open(call))
    refused = await refusal(bench, m.EXPORT, pb.Empty())
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert refused.details == f"this node already serves {GRPC_READERS_MAX} large reads, the limit"
    for reader in opened:
        await reader.__aexit__(None, None, None)
    assert (await bench.call(m.EXPORT, pb.Empty())).sent


# ----------------------------------------------------------------------------- followers and failures


async def test_a_follower_names_the_leader_in_its_initial_metadata(bench: MethodBench) -> None:
    bench.consensus.follow(2)
    bench.clock.advance(HINT_SECONDS + 0.01)  # the hint of the time as leader is forgotten
    header = {m.LEADER_METADATA_KEY: NODES[2].grpc_api_advertise_address}
    transaction = await bench.call(m.TRANSACTION, pb.TxnRequest())
    assert transaction.initial == header
    read = await bench.call(m.KV_READ_V1, pb.RaftRequest(data='{"MGetKV":{"keys":["a"]}}'))
    assert read.initial == header
    upsert = {"UpsertKV": {"key": "k", "seq": "Any", "value": "Delete", "value_meta": None}}
    assert (await bench.call(m.KV_API, pb.RaftRequest(data=json.dumps(upsert)))).initial is None


async def test_the_leader_sends_no_header(bench: MethodBench) -> None:
    assert (await bench.call(m.TRANSACTION, pb.TxnRequest())).initial is None


@pytest.mark.parametrize("method", [m.KV_LIST, m.KV_GET_MANY, m.KV_TRANSACTION], ids=lambda method: method.name)
async def test_methods_for_the_leader_alone_send_clients_there(bench: MethodBench, method: m.Method) -> None:
    bench.consensus.follow(3)
    refused = await refusal(bench, method, method.request())
    assert (refused.code, refused.details) == (Code.UNAVAILABLE, "not leader")
    assert refused.metadata[m.LEADER_METADATA_KEY] == NODES[3].grpc_api_advertise_address
    assert refused.metadata[m.OUTCOME_METADATA_KEY] == m.NOT_DONE
    bench.consensus.follow(None)
    refused = await refusal(bench, method, method.request())
    assert (refused.code, refused.details) == (Code.UNAVAILABLE, "not leader")
    assert m.LEADER_METADATA_KEY not in refused.metadata


FAILURES = [
    (
        errors.NoLeaderError(),
        Code.INTERNAL,
        "can not forward any more: need to forward but no known leader",
        True,
    ),
    (errors.StoppingError(), Code.UNAVAILABLE, "MetaNodeStopped: this node is shutting down", True),
    (errors.UnknownOutcomeError("it may be done"), Code.ABORTED, "it may be done", False),
    (errors.ViewLostError("it took too long; read again"), Code.ABORTED, "it took too long; read again", True),
    (errors.OverloadedError("too many"), Code.RESOURCE_EXHAUSTED, "too many", True),
    (errors.TooLargeError("it", 2, 1), Code.INVALID_ARGUMENT, "it is 2, the limit is 1", True),
    (errors.InvalidRequestError("no"), Code.INVALID_ARGUMENT, "no", True),
    (errors.NotDoneError("later"), Code.UNAVAILABLE, "later", True),
    (errors.NotLeaderError(2), Code.UNAVAILABLE, "not leader", True),
]


@pytest.mark.parametrize(("error", "code", "text", "not_done"), FAILURES)
async def test_every_failure_has_its_status(
    bench: MethodBench, error: Exception, code: StatusCode, text: str, not_done: bool
) -> None:
    bench.consensus.failure = error
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert (refused.code, refused.details) == (code, text)
    assert (refused.metadata.get(m.OUTCOME_METADATA_KEY) == m.NOT_DONE) is not_done


COUNTED = [
    (errors.NoLeaderError(), "no_leader"),
    (errors.NotLeaderError(None), "no_leader"),
    (errors.NotLeaderError(2), "not_leader"),
    (errors.OverloadedError("too many"), "overloaded"),
    (errors.StoppingError(), "stopping"),
    (errors.DamagedCopyError(), "damaged"),
    (errors.NotDoneError("later"), "timeout"),
    (errors.UnknownOutcomeError("it may be done"), "unknown_outcome"),
    (errors.PeerUnreachableError("gone"), "unreachable"),
    (errors.TooLargeError("it", 2, 1), "invalid"),
    (RuntimeError("a defect"), "internal"),
]


@pytest.mark.parametrize(("error", "reason"), COUNTED, ids=[f"{type(e).__name__}-{r}" for e, r in COUNTED])
async def test_every_failed_write_is_counted_by_its_reason(bench: MethodBench, error: Exception, reason: str) -> None:
    bench.consensus.failure = error
    await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    counted = {key: count for key, count in bench.context.metrics.client.failures.items() if count}
    assert counted == {("write", reason): 1}


async def test_an_unexpected_exception_is_logged_and_not_shown(
    bench: MethodBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.consensus.failure = RuntimeError("secret detail")
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is Code.INTERNAL
    assert "secret detail" not in refused.details
    assert "secret detail" in caplog.text
    assert m.OUTCOME_METADATA_KEY not in refused.metadata


async def test_a_draining_node_answers_questions_about_itself_only(bench: MethodBench) -> None:
    bench.context.draining = True
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is Code.UNAVAILABLE
    assert refused.details.startswith("MetaNodeStopped")
    assert (await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent


async def test_a_node_with_a_damaged_copy_answers_questions_about_itself_only(bench: MethodBench) -> None:
    bench.context.copies.damage, bench.context.copies.serves = "key 'k': damaged", False
    refused = await refusal(bench, m.TRANSACTION, pb.TxnRequest())
    assert refused.code is Code.UNAVAILABLE
    assert refused.details == "this node's copy of the state is damaged; ask another node"
    assert refused.metadata[m.OUTCOME_METADATA_KEY] == m.NOT_DONE
    assert (await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent
    bench.context.copies.serves = True  # no other voter has a good copy
    await bench.put("k")


async def test_a_read_that_finds_damage_tells_the_node(bench: MethodBench) -> None:
    found: list[str] = []
    bench.context.damage_found = found.append
    await bench.put("k")
    store = bench.context.machine._store
    store.execute("UPDATE kv SET checksum = checksum + 1 WHERE key = 'k'")
    store.forget()
    refused = await refusal(bench, m.KV_READ_V1, pb.RaftRequest(data='{"GetKV":{"key":"k"}}'))
    assert refused.code is Code.INTERNAL
    assert ["key 'k'" in sentence for sentence in found] == [True]


async def test_calls_are_counted(bench: MethodBench) -> None:
    counters = bench.context.metrics.client
    succeeded, failed = counters.succeeded, counters.failed
    await bench.put("k")
    await refusal(bench, m.TRANSACTION, b"\xff")
    assert (counters.succeeded - succeeded, counters.failed - failed) == (1, 1)
    assert counters.in_flight == 0
    assert counters.sent_bytes > 0
    assert counters.received_bytes > 0


# ----------------------------------------------------------------------------- cluster


async def test_member_list_and_client_info(bench: MethodBench) -> None:
    members = pb.MemberListReply.FromString((await bench.call(m.MEMBER_LIST, pb.MemberListRequest())).sent[-1])
    assert list(members.data) == ["127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193"]
    bench.consensus.change(nodes={2: NODES[2]._replace(grpc_api_advertise_address=None)})
    members = pb.MemberListReply.FromString((await bench.call(m.MEMBER_LIST, pb.MemberListRequest())).sent[-1])
    assert list(members.data) == ["", "", ""]
    info = pb.ClientInfo.FromString((await bench.call(m.GET_CLIENT_INFO, pb.Empty())).sent[-1])
    assert info.client_addr == "127.0.0.1:5555"
    assert info.HasField("server_time")


async def test_cluster_status_texts(bench: MethodBench) -> None:
    status = pb.ClusterStatus.FromString((await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent[-1])
    assert (status.id, status.state, status.is_leader, status.data_version) == (1, "Leader", True, "V004")
    assert status.endpoint == "localhost:28103"
    assert status.leader == status.voters[0] == "id=1 raft=localhost:28103 grpc=127.0.0.1:9191"
    assert status.last_applied == f"T1-N1.{bench.machine.last_applied.index}"
    assert dict(status.replication) == {1: status.last_applied, 2: "T1-N1.1"}, "nothing known of 3"
    assert not status.HasField("purged")
    assert status.raft_log_size == status.raft_log_status.wal_total_size == 3
    assert status.snapshot_key_count == 12
    assert not status.learners


async def test_cluster_status_names_learners_with_their_age(bench: MethodBench) -> None:
    peers = (
        PeerProgress(2, None, 12, True),
        PeerProgress(3, None, None, False, learner_for_ms=5_000, caught_up=False),
        PeerProgress(4, None, None, False, learner_for_ms=7_000),
    )
    bench.consensus.change(peers=peers)
    status = pb.ClusterStatus.FromString((await bench.call(m.GET_CLUSTER_STATUS, pb.Empty())).sent[-1])
    waiting, unknown = status.learners
    assert (waiting.id, waiting.learner_for_ms, waiting.HasField("caught_up"), waiting.caught_up) == (
        3,
        5_000,
        True,
        False,
    )
    assert (unknown.id, unknown.learner_for_ms, unknown.HasField("caught_up")) == (4, 7_000, False)


# ----------------------------------------------------------------------------- any bytes


TAKING_BYTES = [method for method in m.METHODS if method not in (m.HANDSHAKE, m.WATCH)]
JSON_METHODS = (m.KV_API, m.KV_READ_V1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.sampled_from(TAKING_BYTES))
async def test_random_bytes_never_end_in_an_accidental_internal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, method: m.Method
) -> None:
    bench = MethodBench(tmp_path_factory.mktemp("fuzz"))
    try:
        await bench.handshake()
        assert bench.token
        try:
            await bench.call(method, data)
        except AbortedCall as aborted:
            understood = aborted.code in (Code.INVALID_ARGUMENT, Code.OK)
            assert understood or method is m.KV_API, aborted.details  # noqa: PT017 - both ends are fine
    finally:
        await bench.close()
