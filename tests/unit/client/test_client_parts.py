"""Parts of the client without a connection: what failures mean, where to ask next, how transactions are built."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from metasrv.client.answers import upsert_reply_of, watch_event_of
from metasrv.client.caller import _Retries
from metasrv.client.connection import CallFailedError, ClusterPin
from metasrv.client.endpoints import Endpoints
from metasrv.client.outcomes import OtherClusterError, Outcome, TokenRefusedError, outcome_of
from metasrv.client.transaction import Transaction, upsert_request
from metasrv.model import commands as c
from metasrv.model import errors
from metasrv.model.types import SeqV
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

Code = grpc.StatusCode
MARK = (m.OUTCOME_METADATA_KEY, m.NOT_DONE)
LEADER = (m.LEADER_METADATA_KEY, "h:1")


def failure(code: grpc.StatusCode, details: str = "d", *metadata: tuple[str, str]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*metadata), details=details)


# code, details, metadata, meaning of a write, meaning of a read
MEANINGS = [
    (Code.UNAVAILABLE, "Socket closed", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.UNAVAILABLE, "MetaNodeStopped", (MARK,), errors.NotDoneError, errors.NotDoneError),
    (Code.UNAVAILABLE, "not leader", (LEADER,), errors.NotLeaderError, errors.NotLeaderError),
    (Code.DEADLINE_EXCEEDED, "d", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.CANCELLED, "d", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.ABORTED, "d", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.INTERNAL, "d", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.INTERNAL, "no known leader", (MARK,), errors.NoLeaderError, errors.NoLeaderError),
    (Code.UNKNOWN, "d", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.RESOURCE_EXHAUSTED, "d", (MARK,), errors.OverloadedError, errors.OverloadedError),
    (Code.RESOURCE_EXHAUSTED, "too large", (), errors.UnknownOutcomeError, errors.InvalidRequestError),
    (
        Code.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (9 vs. 8)",
        (),
        errors.InvalidRequestError,
        errors.InvalidRequestError,
    ),
    (Code.FAILED_PRECONDITION, "the cluster is read-only", (MARK,), errors.WriteRefusedError, errors.WriteRefusedError),
    (Code.FAILED_PRECONDITION, "of a proxy", (), errors.UnknownOutcomeError, errors.NotDoneError),
    (Code.INVALID_ARGUMENT, "d", (MARK,), errors.InvalidRequestError, errors.InvalidRequestError),
    (Code.UNIMPLEMENTED, "d", (), errors.InvalidRequestError, errors.InvalidRequestError),
    (Code.UNAUTHENTICATED, "d", (MARK,), TokenRefusedError, TokenRefusedError),
]


@pytest.mark.parametrize(("code", "details", "metadata", "write", "read"), MEANINGS)
def test_what_a_failed_call_means(
    code: grpc.StatusCode,
    details: str,
    metadata: tuple[tuple[str, str], ...],
    write: type[Exception],
    read: type[Exception],
) -> None:
    for is_write, expected in ((True, write), (False, read)):
        outcome = outcome_of(failure(code, details, *metadata), "host:9", write=is_write)
        assert type(outcome.error) is expected
        assert "host:9" in str(outcome.error)
        assert details in str(outcome.error)
        assert outcome.leader_address == ("h:1" if LEADER in metadata else None)


class _Asked:
    """The part of a connection that retries look at."""

    endpoint = "a:1"


async def test_a_write_that_the_cluster_does_not_take_is_not_sent_again() -> None:
    said = CallFailedError(outcome_of(failure(Code.FAILED_PRECONDITION, "read-only", MARK), "a:1", write=True))
    asked: Any = _Asked()
    with pytest.raises(errors.WriteRefusedError):
        await _Retries(Endpoints(["a:1", "b:1"]), 10).pause_or_raise(asked, said)


@pytest.mark.virtual_time
async def test_the_reason_is_what_a_server_said_and_not_that_the_last_one_said_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It used to be `Deadline Exceeded` after seconds of `no known leader`."""
    monkeypatch.setattr("metasrv.client.caller.monotonic", asyncio.get_running_loop().time)
    said = CallFailedError(outcome_of(failure(Code.INTERNAL, "no known leader", MARK), "a:1", write=False))
    silent = CallFailedError(outcome_of(failure(Code.DEADLINE_EXCEEDED), "a:1", write=False))
    asked: Any = _Asked()
    retries = _Retries(Endpoints(["a:1", "b:1"]), 0.2)
    await retries.pause_or_raise(asked, said)

    async def until_it_gives_up() -> None:
        while True:
            await retries.pause_or_raise(asked, silent)

    with pytest.raises(errors.NoLeaderError, match="no known leader"):
        await until_it_gives_up()
    with pytest.raises(errors.NotDoneError, match="d"):
        await _Retries(Endpoints(["a:1"]), 0.0).pause_or_raise(asked, silent)


# ----------------------------------------------------------------------------- clusters


def test_the_first_cluster_that_is_named_is_kept_and_another_is_an_error() -> None:
    pin = ClusterPin()
    pin.check("upstream:1", None)  # a server that names none pins nothing
    pin.check("a:1", "first")
    pin.check("b:1", "first")
    pin.check("upstream:1", None)
    with pytest.raises(CallFailedError, match="c:1 belongs to cluster second, this client to cluster first") as caught:
        pin.check("c:1", "second")
    assert isinstance(caught.value.outcome.error, OtherClusterError)
    assert isinstance(caught.value.outcome.error, errors.NotDoneError)
    assert pin.cluster_id == "first"
    with pytest.raises(CallFailedError):
        ClusterPin("given").check("a:1", "first")


async def test_another_cluster_is_told_to_the_caller_at_once_and_the_next_call_goes_elsewhere() -> None:
    endpoints = Endpoints(["a:1", "b:1"])
    asked: Any = _Asked()
    other = CallFailedError(Outcome(OtherClusterError("a:1 belongs to cluster second"), None))
    with pytest.raises(OtherClusterError):
        await _Retries(endpoints, 5.0).pause_or_raise(asked, other)
    assert endpoints.current == "b:1"


# ----------------------------------------------------------------------------- endpoints


def test_endpoints_rotate_and_ignore_late_complaints() -> None:
    endpoints = Endpoints(["a:1", "b:1", "a:1"])
    assert endpoints.all == ("a:1", "b:1")
    endpoints.move_on("a:1")
    endpoints.move_on("a:1")
    assert endpoints.current == "b:1"
    endpoints.move_on("b:1")
    assert endpoints.current == "a:1"


def test_a_named_leader_is_asked_next_even_when_it_was_not_known() -> None:
    endpoints = Endpoints(["a:1"])
    endpoints.prefer("c:1")
    assert endpoints.current == "c:1"
    assert endpoints.all == ("a:1", "c:1")


def test_members_replace_what_was_learned_and_keep_what_was_configured() -> None:
    endpoints = Endpoints(["a:1"])
    endpoints.prefer("old:1")
    endpoints.replace(["b:1", "c:1", ""])
    assert endpoints.all == ("b:1", "c:1", "a:1")
    assert endpoints.current == "b:1"
    endpoints.replace(["d:1", "", ""])
    assert endpoints.all == ("b:1", "c:1", "a:1"), "a minority of addresses is no news"
    endpoints.prefer("c:1")
    endpoints.replace(["c:1", "b:1"])
    assert endpoints.current == "c:1"


class Time:
    """A clock that a test puts forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_leader_that_can_not_be_dialled_is_looked_for_behind_the_configured_endpoints() -> None:
    endpoints = Endpoints(["host:1", "host:2", "host:3"], Time())
    endpoints.reached("host:1", "meta1:9")
    assert endpoints.prefer("meta3:9"), "it is tried once"
    endpoints.move_on("meta3:9")
    assert endpoints.current == "host:1"
    assert not endpoints.prefer("meta3:9")
    assert endpoints.current == "host:2", "one that has not yet said what it is called"
    endpoints.reached("host:2", "meta2:9")
    assert not endpoints.prefer("meta3:9")
    assert endpoints.current == "host:3"
    endpoints.reached("host:3", "meta3:9")
    assert endpoints.prefer("meta3:9")
    assert endpoints.current == "host:3"
    assert endpoints.prefer("meta1:9"), "each new name is tried once, too"
    endpoints.move_on("meta1:9")
    assert endpoints.prefer("meta1:9")
    assert endpoints.current == "host:1"


def test_an_unreachable_name_is_tried_again_ever_more_rarely() -> None:
    time = Time()
    endpoints = Endpoints(["a:1"], time)
    for pause in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        assert endpoints.prefer("meta1:9")
        endpoints.move_on("meta1:9")
        time.now += pause - 0.1
        assert not endpoints.prefer("meta1:9")
        assert endpoints.current == "a:1"
        time.now += 0.2
    endpoints.prefer("meta1:9")
    endpoints.reached("meta1:9", "meta1:9")
    endpoints.move_on("meta1:9")
    assert endpoints.prefer("meta1:9"), "one that was reached before is a node that is down, and comes back"


def test_unreachable_members_are_passed_over_but_configured_endpoints_never() -> None:
    endpoints = Endpoints(["a:1", "b:1"], Time())
    for name in ("meta1:9", "meta2:9"):
        endpoints.prefer(name)
        endpoints.move_on(name)
    endpoints.replace(["meta1:9", "meta2:9"])
    assert endpoints.all == ("meta1:9", "meta2:9", "a:1", "b:1")
    asked = []
    for _ in range(4):
        asked.append(endpoints.current)
        endpoints.move_on(endpoints.current)
    assert asked == ["a:1", "b:1", "a:1", "b:1"]


def test_no_endpoint_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Endpoints([])


# ----------------------------------------------------------------------------- transactions


def test_a_transaction_reads_like_its_request() -> None:
    built = (
        Transaction()
        .when_absent("a")
        .when_present("b")
        .when_value("c", "!=", b"x")
        .when_count("d/", "<=", 3)
        .put("a", b"1", ttl_ms=5, match_seq=0)
        .delete("b", match_seq=2)
        .delete_by_prefix("d/")
        .fetch_increase("n", -1, floor=9)
        .put_sequential("q/", "counter", b"v")
        .otherwise()
        .get("a")
    )
    request = built.request
    kinds = [condition.WhichOneof("target") for condition in request.condition]
    assert kinds == ["seq", "seq", "value", "keys_with_prefix"]
    expected = [pb.TxnCondition.EQ, pb.TxnCondition.GT, pb.TxnCondition.NE, pb.TxnCondition.LE]
    assert [condition.expected for condition in request.condition] == expected
    operations = [operation.WhichOneof("request") for operation in request.if_then]
    assert operations == ["put", "delete", "delete_by_prefix", "fetch_increase_u64", "put_sequential"]
    assert request.if_then[0].put.HasField("match_seq")
    assert not request.if_then[0].put.HasField("expire_at")
    assert [operation.WhichOneof("request") for operation in request.else_then] == ["get"]


def test_a_wrong_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="'=' is none of"):
        Transaction().when_seq("a", "=", 1)


def test_upserts_follow_the_specified_shape() -> None:
    anything = upsert_request("k", c.MatchSeq(c.MatchKind.ANY), b"v", 5, None)
    assert (len(anything.condition), len(anything.else_then)) == (0, 0)
    assert anything.if_then[0].put.ttl_ms == 5
    exact = upsert_request("k", c.MatchSeq(c.MatchKind.EXACT, 0), b"v", None, None)
    assert exact.condition[0] == pb.TxnCondition(key="k", seq=0, expected=pb.TxnCondition.EQ)
    assert exact.else_then[0].get.key == "k"
    delete = upsert_request("k", c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1), None, None, None)
    assert delete.condition[0].expected == pb.TxnCondition.GE
    assert not delete.if_then[0].delete.HasField("match_seq")


def reply(**response: object) -> pb.TxnReply:
    return pb.TxnReply(responses=[pb.TxnOpResponse(**response)])  # type: ignore[arg-type]


def test_upsert_replies_come_from_the_first_response() -> None:
    old, new = pb.SeqV(seq=1, data=b"1"), pb.SeqV(seq=2, data=b"2")
    was, now = SeqV(1, b"1"), SeqV(2, b"2")
    assert upsert_reply_of(reply(put=pb.TxnPutResponse(prev_value=old, current=new))) == (was, now)
    assert upsert_reply_of(reply(delete=pb.TxnDeleteResponse(success=True, prev_value=old))) == (was, None)
    assert upsert_reply_of(reply(delete=pb.TxnDeleteResponse(success=False, prev_value=old))) == (was, was)
    assert upsert_reply_of(reply(get=pb.TxnGetResponse(value=old))) == (was, was)
    with pytest.raises(ValueError, match="without a response"):
        upsert_reply_of(pb.TxnReply())
    with pytest.raises(ValueError, match="another operation"):
        upsert_reply_of(reply(delete_by_prefix=pb.TxnDeleteByPrefixResponse()))


def test_the_marker_of_a_watch_is_told_from_an_event() -> None:
    assert watch_event_of(pb.WatchResponse()).is_marker
    event = watch_event_of(pb.WatchResponse(event=pb.Event(key="k"), is_initialization=True))
    assert (event.key, event.is_initialization, event.is_marker) == ("k", True, False)
