"""What a read and a write cost between the frame and consensus, in calls of Python functions.

Counts do not depend on the machine. A bound is a little above what was counted when it was written; a change that costs
more has to say so here. What the test's clients, clock and consensus call is among them, so a node makes fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from metasrv.grpc_api import quick_reads
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from tests.conftest import RecordProperty
from tests.support.http2_bench import settle
from tests.support.quick_bench import QuickBench, Reader, get

CLIENTS = 8
PUT = pb.TxnRequest(if_then=[pb.TxnOp(put=pb.TxnPutRequest(key="a", value=b"v" * 256))]).SerializeToString()


class Calls:
    """Counts calls of functions of metasrv."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and "/metasrv/" in frame.f_code.co_filename:
            self.count += 1


async def counted(bench: QuickBench, ask: Callable[[Reader, int], None]) -> float:
    """Calls for one of `CLIENTS` requests that arrive together."""
    peers = [bench.peer() for _ in range(CLIENTS)]
    for stream_id in (1, 3):  # what is remembered is known the second time
        before = bench.counters.succeeded
        calls = Calls()
        sys.setprofile(calls)
        try:
            for peer in peers:
                ask(peer, stream_id)
            await settle()
        finally:
            sys.setprofile(None)
        assert bench.counters.succeeded == before + CLIENTS
        for peer in peers:
            peer.frames()
    return calls.count / CLIENTS


@pytest.mark.parametrize(
    ("name", "most", "ask"),
    [
        ("a read", 101, lambda peer, stream_id: peer.ask(m.KV_READ_V1, stream_id, get("a"))),
        ("a write", 179, lambda peer, stream_id: peer.ask(m.TRANSACTION, stream_id, PUT)),
    ],
)
async def test_calls(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: RecordProperty,
    name: str,
    most: int,
    ask: Callable[[Reader, int], None],
) -> None:
    monkeypatch.setattr(quick_reads, "ANSWERING_SECONDS", 60.0)  # the machine may be slow
    bench = QuickBench(tmp_path)
    bench.gate.set()
    await bench.handshake()
    await bench.put("a", b"v" * 256)
    found = await counted(bench, ask)
    record_property("measured", f"{name}: {found:.1f} calls")
    assert 0.8 * most < found <= most, found
    await bench.close()
