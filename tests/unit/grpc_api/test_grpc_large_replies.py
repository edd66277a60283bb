"""Calls whose answers hold values of megabytes: the same messages as for small ones, made without copying the values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metasrv.grpc_api.encoding import LARGE_SIZE_BYTES_MIN
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import MethodBench

OLD, NEW = bytes(LARGE_SIZE_BYTES_MIN), bytes(range(256)) * (LARGE_SIZE_BYTES_MIN // 256)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


async def test_a_put_answers_with_both_large_values(bench: MethodBench) -> None:
    await bench.put("k", OLD)
    reply = await bench.transact(
        pb.TxnOp(put=pb.TxnPutRequest(key="k", value=NEW)), pb.TxnOp(get=pb.TxnGetRequest(key="absent"))
    )
    assert (reply.success, reply.execution_path) == (True, "then")
    put, get = reply.responses
    assert (put.put.key, put.put.prev_value.data, put.put.current.data) == ("k", OLD, NEW)
    assert (put.put.prev_value.seq, put.put.current.seq) == (1, 2)
    assert (get.get.key, get.get.HasField("value")) == ("absent", False)


async def test_a_branch_that_deletes_a_large_value_answers_with_it(bench: MethodBench) -> None:
    await bench.put("k", NEW)
    delete = pb.TxnOp(delete=pb.TxnDeleteRequest(key="k"))
    request = pb.KvTransactionRequest(branches=[pb.ConditionalOperation(operations=[delete])])
    reply = pb.KvTransactionReply.FromString((await bench.call(m.KV_TRANSACTION, request)).sent[-1])
    assert reply.executed_branch == 0
    assert (reply.responses[0].delete.success, reply.responses[0].delete.prev_value.data) == (True, NEW)


async def test_a_large_value_is_read(bench: MethodBench) -> None:
    await bench.put("k", NEW)
    [item] = await bench.read({"GetKV": {"key": "k"}})
    assert (item.key, item.value.seq, item.value.data) == ("k", 1, NEW)
