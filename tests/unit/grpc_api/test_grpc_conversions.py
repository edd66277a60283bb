"""Protobuf to commands and replies to protobuf: nothing lost, nothing accidental."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasrv.client.answers import record_of, response_of, transaction_reply_of
from metasrv.grpc_api import large_replies
from metasrv.grpc_api.changes import watch_response
from metasrv.grpc_api.encoding import LARGE_SIZE_BYTES_MIN
from metasrv.grpc_api.items import stream_item
from metasrv.grpc_api.replies import branch_transaction_reply, record_out, transaction_reply
from metasrv.grpc_api.requests import branch_transaction_from, transaction_from
from metasrv.model import commands as c
from metasrv.model.codec import decode_command, encode_command
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.command_rules import validate_command
from metasrv.state.watch import WatchItem

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
BYTES = st.binary(max_size=8)
MAYBE_U64 = st.none() | U64


def one(operation: pb.TxnOp) -> c.TransactionOperation:
    (converted,) = transaction_from(pb.TxnRequest(if_then=[operation])).if_then
    return converted


def test_every_operation() -> None:
    put = pb.TxnPutRequest(key="k", value=b"v", prev_value=True, expire_at=1, ttl_ms=2, match_seq=0)
    assert one(pb.TxnOp(put=put)) == c.Put("k", b"v", 1, 2, 0)
    assert one(pb.TxnOp(put=pb.TxnPutRequest(key="k"))) == c.Put("k", b"", None, None, None)
    assert one(pb.TxnOp(get=pb.TxnGetRequest(key="k"))) == c.Get("k")
    assert one(pb.TxnOp(delete=pb.TxnDeleteRequest(key="k"))) == c.Delete("k", None)
    assert one(pb.TxnOp(delete=pb.TxnDeleteRequest(key="k", match_seq=0))) == c.Delete("k", 0)
    assert one(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="p"))) == c.DeleteByPrefix("p")
    increase = pb.FetchIncreaseU64(key="k", delta=-5, match_seq=7, max_value=9)
    assert one(pb.TxnOp(fetch_increase_u64=increase)) == c.FetchIncrease("k", -5, 7, 9)
    sequential = pb.PutSequential(prefix="p", sequence_key="s", value=b"v", expires_at_ms=1, ttl_ms=2)
    assert one(pb.TxnOp(put_sequential=sequential)) == c.PutSequential("p", "s", b"v", 1, 2)


def test_no_request_set_is_a_get_of_the_empty_key() -> None:
    assert one(pb.TxnOp()) == c.Get("")


def test_conditions_and_their_edges() -> None:
    def condition(message: pb.TxnCondition) -> c.Condition:
        (converted,) = transaction_from(pb.TxnRequest(condition=[message])).conditions
        return converted

    ge = pb.TxnCondition.GE
    assert condition(pb.TxnCondition(key="k", seq=0)) == c.Condition("k", c.Target.SEQ, 0, c.Comparison.EQ)
    expected = c.Condition("k", c.Target.VALUE, b"", c.Comparison.GE)
    assert condition(pb.TxnCondition(key="k", value=b"", expected=ge)) == expected
    expected = c.Condition("k", c.Target.KEYS_WITH_PREFIX, 3, c.Comparison.GE)
    assert condition(pb.TxnCondition(key="k", keys_with_prefix=3, expected=ge)) == expected
    assert condition(pb.TxnCondition(key="k", expected=ge)).target is c.Target.NONE
    for number in (-1, 6, 2**31 - 1):
        unknown = pb.TxnCondition(key="k", seq=1, expected=number)  # type: ignore[arg-type]
        assert condition(unknown).comparison is c.Comparison.EQ


def test_an_absent_predicate_is_none_and_an_empty_one_is_not() -> None:
    request = pb.KvTransactionRequest(
        branches=[pb.ConditionalOperation(), pb.ConditionalOperation(predicate=pb.BooleanExpression())]
    )
    absent, empty = branch_transaction_from(request).branches
    assert absent.predicate is None
    assert empty.predicate == c.Expression(c.Combine.AND, (), ())


def conditions() -> st.SearchStrategy[pb.TxnCondition]:
    targets = st.one_of(
        st.just({}),
        st.builds(lambda value: {"value": value}, BYTES),
        st.builds(lambda seq: {"seq": seq}, U64),
        st.builds(lambda count: {"keys_with_prefix": count}, U64),
    )
    return st.builds(
        lambda key, target, expected: pb.TxnCondition(key=key, expected=expected, **target),
        TEXT,
        targets,
        st.integers(-(2**31), 2**31 - 1),
    )


def expressions() -> st.SearchStrategy[pb.BooleanExpression]:
    return st.recursive(
        st.builds(lambda found: pb.BooleanExpression(conditions=found), st.lists(conditions(), max_size=2)),
        lambda inner: st.builds(
            lambda operator, subs, found: pb.BooleanExpression(operator=operator, sub_expressions=subs, conditions=found),
            st.integers(-1, 3),
            st.lists(inner, max_size=3),
            st.lists(conditions(), max_size=2),
        ),
        max_leaves=8,
    )


OPERATIONS = st.one_of(
    st.just(pb.TxnOp()),
    st.builds(lambda key: pb.TxnOp(get=pb.TxnGetRequest(key=key)), TEXT),
    st.builds(
        lambda key, value, expire_at, ttl_ms, match: pb.TxnOp(
            put=pb.TxnPutRequest(key=key, value=value, expire_at=expire_at, ttl_ms=ttl_ms, match_seq=match)
        ),
        TEXT,
        BYTES,
        MAYBE_U64,
        MAYBE_U64,
        MAYBE_U64,
    ),
    st.builds(lambda key, match: pb.TxnOp(delete=pb.TxnDeleteRequest(key=key, match_seq=match)), TEXT, MAYBE_U64),
    st.builds(lambda prefix: pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix=prefix)), TEXT),
    st.builds(
        lambda key, delta, match, floor: pb.TxnOp(
            fetch_increase_u64=pb.FetchIncreaseU64(key=key, delta=delta, match_seq=match, max_value=floor)
        ),
        TEXT,
        st.integers(-(2**63), 2**63 - 1),
        MAYBE_U64,
        U64,
    ),
    st.builds(
        lambda prefix, key, value, at, ttl: pb.TxnOp(
            put_sequential=pb.PutSequential(prefix=prefix, sequence_key=key, value=value, expires_at_ms=at, ttl_ms=ttl)
        ),
        TEXT,
        TEXT,
        BYTES,
        MAYBE_U64,
        MAYBE_U64,
    ),
)
BRANCHES = st.builds(
    lambda predicate, operations: pb.ConditionalOperation(predicate=predicate, operations=operations),
    st.none() | expressions(),
    st.lists(OPERATIONS, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        lambda branches, found, then, other: pb.TxnRequest(
            operations=branches, condition=found, if_then=then, else_then=other
        ),
        st.lists(BRANCHES, max_size=3),
        st.lists(conditions(), max_size=3),
        st.lists(OPERATIONS, max_size=4),
        st.lists(OPERATIONS, max_size=4),
    )
)
def test_any_transaction_becomes_a_command_that_the_log_can_hold(request: pb.TxnRequest) -> None:
    command = transaction_from(pb.TxnRequest.FromString(request.SerializeToString()))
    validate_command(command)
    assert decode_command(encode_command(command)) == command


@settings(max_examples=100, deadline=None)
@given(st.lists(BRANCHES, max_size=4))
def test_any_branch_transaction_becomes_a_command(branches: list[pb.ConditionalOperation]) -> None:
    command = branch_transaction_from(pb.KvTransactionRequest(branches=branches))
    validate_command(command)
    assert decode_command(encode_command(command)) == command


def test_the_deepest_tree_that_protobuf_parses_is_refused_not_crashed_on() -> None:
    data = b""
    for _ in range(80):
        data = b"\x12" + _varint(len(data)) + data
    branch = b"\x0a" + _varint(len(data)) + data
    request = pb.KvTransactionRequest.FromString(b"\x0a" + _varint(len(branch)) + branch)
    with pytest.raises(InvalidRequestError):
        validate_command(branch_transaction_from(request))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


RECORDS = st.builds(SeqV, U64, BYTES, st.none() | st.builds(KVMeta, st.none() | U64, st.none() | U64))
MAYBE_RECORD = st.none() | RECORDS
RESPONSES = st.one_of(
    st.builds(c.GetResponse, TEXT, MAYBE_RECORD),
    st.builds(c.PutResponse, TEXT, MAYBE_RECORD, MAYBE_RECORD),
    st.builds(c.DeleteResponse, TEXT, st.booleans(), MAYBE_RECORD),
    st.builds(c.DeleteByPrefixResponse, TEXT, st.integers(0, 2**32 - 1)),
    st.builds(c.FetchIncreaseResponse, TEXT, U64, U64, U64, U64),
)


@given(RECORDS)
def test_records_come_back_as_they_went(record: SeqV) -> None:
    message = record_out(record)
    assert message is not None
    assert record_of(pb.SeqV.FromString(message.SerializeToString())) == record


@given(st.builds(c.TransactionReply, st.booleans(), st.lists(RESPONSES, max_size=4).map(tuple), TEXT))
def test_replies_come_back_as_they_went(reply: c.TransactionReply) -> None:
    data = asyncio.run(transaction_reply(reply)).SerializeToString()
    assert transaction_reply_of(pb.TxnReply.FromString(data)) == reply


@given(st.lists(RESPONSES, max_size=4).map(tuple), st.integers(0, 4), st.sampled_from([0, 1, 200, 2**16]))
def test_replies_with_large_values_come_back_as_they_went(
    responses: tuple[c.OperationResponse, ...], place: int, more_bytes: int
) -> None:
    value = bytes(LARGE_SIZE_BYTES_MIN + more_bytes)
    large = c.PutResponse("k", SeqV(3, value, KVMeta(7, None)), SeqV(2**63, value))
    reply = c.TransactionReply(True, (*responses[:place], large, *responses[place:]), "then")
    head = pb.TxnReply(success=True, execution_path="then")
    pieces = asyncio.run(large_replies.reply_in_pieces(head, reply.responses))
    assert [piece is value for piece in pieces].count(True) == 2, "it is sent as it is"
    assert transaction_reply_of(pb.TxnReply.FromString(b"".join(pieces))) == reply


@pytest.mark.parametrize("more_bytes", [-1, 0, 1])
def test_large_records_of_streams_come_back_as_they_went(more_bytes: int) -> None:
    record = SeqV(3, bytes(LARGE_SIZE_BYTES_MIN + more_bytes), KVMeta(7, None))
    item = pb.StreamItem.FromString(stream_item("k", record))
    assert (item.key, record_of(item.value)) == ("k", record)
    for current, prev in ((record, None), (None, record), (record, record)):
        response = pb.WatchResponse.FromString(watch_response(WatchItem("k", prev, current, is_initialization=True)))
        assert response.is_initialization
        shown = [record_of(response.event.current), record_of(response.event.prev)]
        assert [
            one if response.event.HasField(name) else None for name, one in zip(("current", "prev"), shown, strict=True)
        ] == [current, prev]


@pytest.mark.parametrize(
    "make",
    [
        lambda record: c.GetResponse("k", record),
        lambda record: c.DeleteResponse("k", True, record),
        lambda record: c.PutResponse("k", None, record),
        lambda record: c.PutResponse("k", record, None),
    ],
)
async def test_a_value_is_large_from_a_size_on(make: Callable[[SeqV], c.OperationResponse]) -> None:
    at, below = (make(SeqV(1, bytes(LARGE_SIZE_BYTES_MIN - less))) for less in (0, 1))
    assert large_replies.has_large_value((c.GetResponse("k", None), at))
    assert not large_replies.has_large_value((below, c.DeleteByPrefixResponse("", 1)))
    pieces = await large_replies.reply_in_pieces(pb.KvTransactionReply(executed_branch=2), (below, at))
    message = pb.KvTransactionReply.FromString(b"".join(pieces))
    assert message.executed_branch == 2
    assert [response_of(response) for response in message.responses] == [below, at]


async def test_an_unset_branch_stays_unset() -> None:
    assert not (await branch_transaction_reply(c.BranchTransactionReply(None, ()))).HasField("executed_branch")
    assert (await branch_transaction_reply(c.BranchTransactionReply(0, ()))).HasField("executed_branch")


def test_an_unknown_response_is_not_taken_for_a_known_one() -> None:
    with pytest.raises(ValueError, match="does not know"):
        response_of(pb.TxnOpResponse())
