"""Which keys a kept write is about, for each of the three methods, without its values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metasrv.grpc_api.written_keys import NOTHING, written_by
from metasrv.node.slow_writes import Written
from metasrv.protocol.proto import meta_pb2 as pb


def put(key: str) -> pb.TxnOp:
    return pb.TxnOp(put=pb.TxnPutRequest(key=key, value=b"never kept"))


def upsert(**fields: Any) -> pb.RaftRequest:
    return pb.RaftRequest(data=json.dumps({"UpsertKV": fields}))


@pytest.mark.parametrize(
    ("request_", "written"),
    [
        (pb.TxnRequest(if_then=[put("a"), put("b")], else_then=[put("c"), put("d")]), Written(("a", "b", "c"), 4)),
        (
            pb.TxnRequest(
                operations=[
                    pb.ConditionalOperation(
                        operations=[
                            pb.TxnOp(delete=pb.TxnDeleteRequest(key="a")),
                            pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="b/")),
                            pb.TxnOp(),
                        ]
                    )
                ]
            ),
            Written(("a", "b/"), 3),
        ),
        (
            pb.KvTransactionRequest(
                branches=[
                    pb.ConditionalOperation(operations=[pb.TxnOp(put_sequential=pb.PutSequential(prefix="q/"))]),
                    pb.ConditionalOperation(operations=[pb.TxnOp(fetch_increase_u64=pb.FetchIncreaseU64(key="n"))]),
                ]
            ),
            Written(("q/", "n"), 2),
        ),
        (upsert(key='quo"ted\\ü', seq={"Any": None}, value={"Update": [1, 2]}), Written(('quo"ted\\ü',), 1)),
        (upsert(value={"Update": [1]}, key="later"), Written((), 1)),
        (upsert(key="k" * 10_000), Written((), 1)),
        (pb.RaftRequest(data="not JSON"), Written((), 1)),
        (pb.RaftRequest(data='{"UpsertKV": {"key": "\\ud8'), Written((), 1)),
        (pb.MigrateRequest(), NOTHING),
    ],
)
def test_keys_of_a_request(request_: Any, written: Written) -> None:
    assert written_by(request_) == written
