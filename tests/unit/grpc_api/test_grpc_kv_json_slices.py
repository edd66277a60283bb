"""Large values in the JSON of KvApi: the same answers as in one piece, without a long step of the loop."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable
from itertools import pairwise
from time import thread_time
from typing import Any, TypeVar

import pytest

from metasrv.grpc_api import kv_json, kv_json_slices
from metasrv.grpc_api.replies import RESPONSES_AT_ONCE, transaction_reply
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb

Result = TypeVar("Result")
VALUE = random.Random(1).randbytes(200_000)


def request(value: Any, **fields: Any) -> str:
    return json.dumps({"UpsertKV": {"key": 'k["\\', "seq": "Any", "value": value, "value_meta": None, **fields}})


async def steps_of(work: Awaitable[Result]) -> tuple[Result, list[float]]:
    """The result, and the seconds of processor time of each turn of the loop meanwhile."""
    task = asyncio.ensure_future(work)
    turns = [thread_time()]
    while not task.done():
        await asyncio.sleep(0)
        turns.append(thread_time())
    return await task, [later - earlier for earlier, later in pairwise(turns)]


@pytest.mark.parametrize("size_bytes", [0, 1, 8_000, 20_000, 200_000])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")])
async def test_a_large_value_reads_as_a_small_one(size_bytes: int, separators: tuple[str, str]) -> None:
    tree = json.loads(request({"Update": list(VALUE[:size_bytes])}, value_meta={"expire_at": 7}))
    text = json.dumps(tree, separators=separators)
    assert await kv_json_slices.parse_write(text) == kv_json.parse_write(text)


async def test_other_large_parts_read_as_always() -> None:
    long = "[1,2," * 20_000
    assert (await kv_json_slices.parse_write(request("Delete", key=long))).key == long
    text = request({"Update": [1]}, later=[0.5, list(VALUE), [list(VALUE), long]])
    assert await kv_json_slices.parse_write(text) == kv_json.parse_write(text)


LONG = ",".join(["200"] * 20_000)


@pytest.mark.parametrize(
    "array",
    [
        f"[{LONG},]",
        f"[,{LONG}]",
        f"[{LONG},,{LONG}]",
        f"[{LONG},256,{LONG}]",
        f"[{LONG},01,{LONG}]",
        f"[{LONG},1 2,{LONG}]",
        f"[{LONG},-1]",
        f"[{LONG}",
        f"5[{LONG}]",
        f"[{LONG}]5",
        f"[{'1' * 40_000}]",
        f"[[{LONG}]]",
    ],
)
async def test_what_is_refused_in_one_piece_is_refused_in_several(array: str) -> None:
    text = request({"Update": "HERE"}).replace('"HERE"', array)
    with pytest.raises(InvalidRequestError):
        kv_json.parse_write(text)
    with pytest.raises(InvalidRequestError):
        await kv_json_slices.parse_write(text)
    with pytest.raises(InvalidRequestError):
        await kv_json_slices.parse_write(request("Delete").replace('"k[\\"\\\\"', f"[{LONG}]"))


@pytest.mark.parametrize("size_bytes", [0, 8_000, 9_000, 32_768, 40_000, 600_000])
async def test_a_large_answer_is_written_as_a_small_one(size_bytes: int) -> None:
    metas = (None, KVMeta(None, 5), KVMeta(9, 5))
    for meta in metas:
        record = SeqV(3, (VALUE * 3)[:size_bytes], meta)
        for reply in (c.UpsertReply(None, record), c.UpsertReply(record, None), c.UpsertReply(record, record)):
            encoded = await kv_json_slices.upsert_reply(reply)
            whole = pb.RaftReply(data=kv_json.upsert_reply_text(reply))
            if isinstance(encoded, list):
                assert b"".join(encoded) == whole.SerializeToString()
            else:
                assert encoded == whole
                assert size_bytes <= kv_json_slices.WHOLE_SIZE_BYTES_MAX


async def test_the_loop_turns_while_large_values_are_read_and_written() -> None:
    text = request({"Update": list(VALUE * 5)})
    command, steps = await steps_of(kv_json_slices.parse_write(text))
    assert command.value == VALUE * 5
    assert len(steps) > len(text) // kv_json_slices.SLICE_CHARACTERS
    longest = max(steps)
    _, steps = await steps_of(kv_json_slices.upsert_reply(c.UpsertReply(None, SeqV(1, VALUE * 5, None))))
    assert len(steps) > len(VALUE) * 5 // kv_json_slices.SLICE_BYTES
    assert max(longest, *steps) < 0.01, "in one piece this takes more than 0.1 s"


async def test_the_loop_turns_while_many_responses_are_written() -> None:
    responses = tuple(c.GetResponse(f"key/{number}", None) for number in range(1_000))
    message, steps = await steps_of(transaction_reply(c.TransactionReply(True, responses, "then")))
    assert [response.get.key for response in message.responses] == [response.key for response in responses]
    assert len(steps) >= len(responses) // RESPONSES_AT_ONCE


async def test_responses_are_filled_in_place_as_messages_are_put_together() -> None:
    empty, full = SeqV(0, b"", None), SeqV(7, b"v", KVMeta(9, 5))
    responses = (
        c.PutResponse("", None, empty),
        c.PutResponse("k", full, SeqV(8, b"", KVMeta(None, None))),
        c.GetResponse("", None),
        c.GetResponse("k", empty),
        c.DeleteResponse("", False, None),
        c.DeleteResponse("k", True, full),
        c.DeleteByPrefixResponse("", 0),
    )
    seq_v = pb.SeqV(seq=7, data=b"v", meta=pb.KVMeta(expire_at=9, proposed_at_ms=5))
    expected = [
        pb.TxnOpResponse(put=pb.TxnPutResponse(key="", current=pb.SeqV())),
        pb.TxnOpResponse(put=pb.TxnPutResponse(key="k", prev_value=seq_v, current=pb.SeqV(seq=8, meta=pb.KVMeta()))),
        pb.TxnOpResponse(get=pb.TxnGetResponse(key="")),
        pb.TxnOpResponse(get=pb.TxnGetResponse(key="k", value=pb.SeqV())),
        pb.TxnOpResponse(delete=pb.TxnDeleteResponse(key="", success=False)),
        pb.TxnOpResponse(delete=pb.TxnDeleteResponse(key="k", success=True, prev_value=seq_v)),
        pb.TxnOpResponse(delete_by_prefix=pb.TxnDeleteByPrefixResponse(prefix="", count=0)),
    ]
    message = await transaction_reply(c.TransactionReply(True, responses, "then"))
    assert [response.SerializeToString() for response in message.responses] == [
        response.SerializeToString() for response in expected
    ]
