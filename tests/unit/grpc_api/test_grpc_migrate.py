"""The Migrate method: what it refuses before anything is proposed, and how its replies look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.migrate import command_from
from metasrv.model import commands as c
from metasrv.model.limits import MIGRATED_RECORDS_MAX
from metasrv.model.migration import MigratedRecord
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_bench import AbortedCall, MethodBench

Step = pb.MigrateRequest


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    await made.handshake()
    await made.consensus.propose(c.SetFeature(c.MIGRATION_FEATURE, True), 1000)
    yield made
    await made.close()


async def refusal(bench: MethodBench, method: m.Method, request: Message) -> tuple[StatusCode, str]:
    with pytest.raises(AbortedCall) as caught:
        await bench.call(method, request)
    assert caught.value.metadata == {"x-metasrv-outcome": "not-done"}
    return caught.value.code, caught.value.details


async def step(bench: MethodBench, request: pb.MigrateRequest) -> pb.MigrateReply:
    return pb.MigrateReply.FromString((await bench.call(m.MIGRATE, request)).sent[-1])


async def test_it_is_refused_while_the_feature_is_off(bench: MethodBench) -> None:
    await bench.consensus.propose(c.SetFeature(c.MIGRATION_FEATURE, False), 1000)
    code, text = await refusal(bench, m.MIGRATE, pb.MigrateRequest(run=1, source="old"))
    assert code is StatusCode.INVALID_ARGUMENT
    assert text.endswith("metactl set-feature --feature migration --enable true")


async def test_steps_and_their_replies(bench: MethodBench) -> None:
    assert await step(bench, pb.MigrateRequest(run=1, source="old")) == pb.MigrateReply(source="old", run=1)
    again = await step(bench, pb.MigrateRequest(run=1, source="old"))
    assert again.refused == "run 1 leads the migration, and run 1 is not newer"
    record = pb.MigratedRecord(key="a", seq=7, data=b"", expire_at=0, proposed_at_ms=3)
    stored = await step(bench, pb.MigrateRequest(step=Step.STORE, run=1, records=[record]))
    assert stored == pb.MigrateReply(source="old", run=1, last_seq=7, key_count=1)
    put = pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key="b", value=b""))])
    code, text = await refusal(bench, m.TRANSACTION, put)
    assert code is StatusCode.INVALID_ARGUMENT
    assert text.startswith("this cluster takes the records of cluster old and no other writes")


def test_what_is_unset_and_what_is_empty_are_told_apart() -> None:
    empty, unset = pb.MigratedRecord(key="a", seq=1, data=b"", expire_at=0), pb.MigratedRecord(key="b", seq=2)
    command = command_from(pb.MigrateRequest(step=Step.STORE, run=1, records=[empty, unset]))
    assert command.records == (MigratedRecord("a", 1, b"", 0, 0), MigratedRecord("b", 2, None, None, 0))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.MigrateRequest(step=9), "9 is no step of a migration"),  # type: ignore[arg-type]
        (pb.MigrateRequest(step=Step.STORE, records=[pb.MigratedRecord(key="a")]), "a record has no sequence number"),
        (pb.MigrateRequest(step=Step.CLEAR, count=MIGRATED_RECORDS_MAX + 1), "the records to delete in one step is 129"),
        (pb.MigrateRequest(run=2**64 - 1), "is not a number up to"),
    ],
)
async def test_what_cannot_be_a_step_is_never_proposed(
    bench: MethodBench, request_: pb.MigrateRequest, sentence: str
) -> None:
    before = len(bench.consensus.proposals)
    code, text = await refusal(bench, m.MIGRATE, request_)
    assert (code, sentence in text) == (StatusCode.INVALID_ARGUMENT, True), text
    assert len(bench.consensus.proposals) == before
