"""KvGetMany over the real state machine, without sockets: one instant a call, and when a call ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.grpc_api.http2.status import StatusCode as Code
from metasrv.model.limits import INSTANTS_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import AbortedCall, MethodBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    yield made
    await made.close()


async def test_get_many_answers_while_the_input_is_open(bench: MethodBench) -> None:
    await bench.put("a", b"1")
    requests: list[Any] = [pb.KvGetManyRequest(key=key) for key in ("a", "b", "a")]
    call = await bench.call(m.KV_GET_MANY, list(requests))
    items = [pb.StreamItem.FromString(data) for data in call.sent]
    assert [(item.key, item.HasField("value")) for item in items] == [("a", True), ("b", False), ("a", True)]
    broken: list[Any] = [*requests[:1], b"\xff"]
    with pytest.raises(AbortedCall) as caught:
        await bench.call(m.KV_GET_MANY, broken)
    assert caught.value.code is Code.INVALID_ARGUMENT


def put_op(key: str, value: bytes) -> pb.TxnOp:
    return pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value))


async def get_pairs(bench: MethodBench, reader: int, *metadata: tuple[str, str]) -> list[bytes]:
    """Ask for x and y, which are written together, and write both anew in between; what the call was answered."""

    async def keys() -> AsyncIterator[pb.KvGetManyRequest]:
        for key in ("x", "y", "later", "x"):
            yield pb.KvGetManyRequest(key=key)
            await bench.transact(*(put_op(name, b"%d/%s" % (reader, key.encode())) for name in ("x", "y", "later")))

    call = await bench.call(m.KV_GET_MANY, keys(), metadata)
    return [pb.StreamItem.FromString(data).value.data for data in call.sent]


@pytest.mark.parametrize("metadata", [(), ((m.READ_METADATA_KEY, m.STALE_READ),)])
async def test_get_many_shows_one_instant(bench: MethodBench, metadata: tuple[tuple[str, str], ...]) -> None:
    await bench.transact(put_op("x", b"1"), put_op("y", b"1"))
    assert await get_pairs(bench, 1, *metadata) == [b"1", b"1", b"", b"1"]
    assert len(bench.machine.instants) == 0


async def test_hundreds_of_get_many_calls_at_once_each_show_one_instant(bench: MethodBench) -> None:
    await bench.transact(put_op("x", b"1"), put_op("y", b"1"), put_op("later", b"1"))
    answers = await asyncio.gather(*(get_pairs(bench, reader) for reader in range(300)))
    assert all(len(set(values)) == 1 and len(values) == 4 for values in answers)


async def test_a_get_many_call_that_stays_open_is_ended(bench: MethodBench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keys() -> AsyncIterator[pb.KvGetManyRequest]:
        yield pb.KvGetManyRequest(key="x")
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("metasrv.grpc_api.get_many.GRPC_GET_MANY_SECONDS_MAX", 0)
    with pytest.raises(AbortedCall, match="open for 0 seconds") as caught:
        await bench.call(m.KV_GET_MANY, keys())
    assert caught.value.code is Code.ABORTED
    assert caught.value.metadata[m.OUTCOME_METADATA_KEY] == m.NOT_DONE


async def test_a_get_many_call_ends_at_once_when_too_much_is_replaced(bench: MethodBench) -> None:
    async def keys() -> AsyncIterator[pb.KvGetManyRequest]:
        yield pb.KvGetManyRequest(key="x")
        for _ in range(INSTANTS_SIZE_BYTES_MAX // VALUE_SIZE_BYTES_MAX + 2):
            await bench.put("x", bytes(VALUE_SIZE_BYTES_MAX - 1024))
        await asyncio.get_running_loop().create_future()  # not the client's next key ends it

    with pytest.raises(AbortedCall, match=r"records of [0-9.]+ MiB were replaced") as caught:
        await bench.call(m.KV_GET_MANY, keys())
    assert caught.value.code is Code.ABORTED
    assert len(bench.machine.instants) == 0
