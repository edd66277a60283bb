"""What is said of a call that has ended: the first key of each kind of request, and never a value."""

from __future__ import annotations

from typing import Any

import pytest

from metasrv.grpc_api import ended_requests
from metasrv.grpc_api.ended_requests import ended_request
from metasrv.model.failure_reasons import FailureReason
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb


class Call:
    def peer(self) -> str:
        return "ipv4:10.0.0.7:4711"


def key(method: m.Method, message: Any) -> str:
    call: Any = Call()
    return ended_request(method, message.SerializeToString(), call, None, None).key()


PUT = pb.TxnOp(put=pb.TxnPutRequest(key="a/b", value=b"secret"))


@pytest.mark.parametrize(
    ("method", "message", "shown"),
    [
        (m.TRANSACTION, pb.TxnRequest(if_then=[PUT]), '"a/b"'),
        (m.TRANSACTION, pb.TxnRequest(), ""),
        (m.KV_TRANSACTION, pb.KvTransactionRequest(branches=[pb.ConditionalOperation(operations=[PUT])]), '"a/b"'),
        (m.KV_LIST, pb.KvListRequest(prefix="p/"), '"p/"'),
        (m.KV_READ_V1, pb.RaftRequest(data='{"MGetKV":{"keys":["x\\u001b","y"]}}'), r'"x\u001b"'),
        (m.KV_READ_V1, pb.RaftRequest(data='{"ListKV":{"prefix":"p/"}}'), '"p/"'),
        (m.KV_API, pb.RaftRequest(data='{"UpsertKV":{"key":"k","seq":{"GE":0},"value":{"Update":[1]}}}'), '"k"'),
        (m.KV_API, pb.RaftRequest(data="not JSON"), ""),
        (m.MEMBER_LIST, pb.MemberListRequest(), ""),
    ],
)
def test_the_first_key_of_a_request(method: m.Method, message: Any, shown: str) -> None:
    assert key(method, message) == shown


def test_a_message_that_does_not_parse_or_is_huge_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    call: Any = Call()
    assert ended_request(m.TRANSACTION, b"\xff\xff", call, None, None).key() == ""
    monkeypatch.setattr(ended_requests, "PARSED_SIZE_BYTES_MAX", 4)
    assert key(m.TRANSACTION, pb.TxnRequest(if_then=[PUT])) == ""


def test_the_client_and_the_outcome() -> None:
    call: Any = Call()
    end = ended_request(m.KV_LIST, b"", call, None, FailureReason.NO_LEADER)
    assert (end.outcome, end.client()) == ("no_leader", "10.0.0.7:4711")
