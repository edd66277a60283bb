"""Whatever a call writes to the log has the id of the call, whether slow requests are looked for or not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.tracing.request_ids import current_request_id
from tests.support.grpc_bench import AbortedCall, MethodBench

METADATA = (("x-request-id", "req-17"),)


class Noting(logging.Handler):
    """The id of the request at each line."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, str | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.noted.append((record.getMessage(), current_request_id()))


@pytest.fixture
def lines() -> Any:
    handler = Noting()
    logging.getLogger().addHandler(handler)
    yield handler.noted
    logging.getLogger().removeHandler(handler)


@pytest.fixture(params=[0, 1000])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MethodBench]:
    made = MethodBench(tmp_path)
    made.context.watch.set_slow_ms(request.param)
    await made.handshake()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        (m.TRANSACTION, pb.TxnRequest()),
        (m.KV_LIST, pb.KvListRequest(prefix="a")),
        (m.WATCH, pb.WatchRequest(key="a")),
        (m.KV_GET_MANY, [pb.KvGetManyRequest(key="a")]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
async def test_a_call_that_fails_unexpectedly_says_which_one_it_was(
    bench: MethodBench, lines: list[tuple[str, str | None]], method: m.Method, request_message: Any
) -> None:
    async def fails(_request: Any, _call: Any) -> Any:
        raise RuntimeError("a mistake")

    bench._bodies = {**bench._bodies, method: fails}
    with pytest.raises(AbortedCall):
        await asyncio.create_task(bench.call(method, request_message, METADATA))
    assert ("a client call failed unexpectedly", "req-17") in lines
    assert current_request_id() is None
