"""What RFC 9113 and RFC 7541 ask of a server, case by case (`tests/support/http2_conformance.py`)."""

from __future__ import annotations

import pytest

from metasrv.grpc_api.http2 import frames as f
from tests.support.http2_bench import Bench, Peer, settle
from tests.support.http2_conformance import PROBE, Case
from tests.support.http2_conformance_fields import FIELD_CASES
from tests.support.http2_conformance_frames import FRAME_CASES

CASES = [*FRAME_CASES, *FIELD_CASES]


def number(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big")


async def seen(case: Case) -> tuple[Peer, list[tuple[int, int, int, bytes]]]:
    """The frames that a case's bytes lead to, and the answer to the PING behind them."""
    peer = Peer(Bench().server)
    peer.send(case.sent)
    await settle()
    peer.send(f.frame(f.PING, 0, 0, PROBE))
    await settle()
    return peer, peer.frames()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.section} {case.name}" for case in CASES])
async def test_a_case(case: Case) -> None:
    peer, frames = await seen(case)
    goaways = [number(payload[4:]) for kind, _, _, payload in frames if kind == f.GOAWAY]
    resets = {stream: number(payload) for kind, _, stream, payload in frames if kind == f.RST_STREAM}
    outcome = case.outcome
    if outcome.ends == "connection":
        assert len(goaways) == 1, resets
        assert goaways[0] in outcome.codes
        assert peer.transport.closed
        assert frames[-1][0] == f.GOAWAY, "nothing follows"
        return
    assert not goaways
    assert (f.PING, f.ACK, 0, PROBE) in frames
    assert not peer.transport.closed
    if outcome.ends == "stream":
        assert list(resets) == list(outcome.streams)
        assert set(resets.values()) <= set(outcome.codes)
        assert not [stream for kind, _, stream, _ in frames if kind == f.DATA and stream in outcome.streams]
    elif outcome.ends == "answered":
        ended = [stream for kind, flags, stream, _ in frames if kind == f.HEADERS and flags & f.END_STREAM]
        assert sorted(ended) == list(outcome.streams)
        assert {stream for kind, _, stream, _ in frames if kind == f.DATA} == set(outcome.streams)
    peer.connection.connection_lost(None)


def test_every_section_has_cases_of_both_kinds() -> None:
    assert len(CASES) >= 146, "as many as h2spec has"
    assert len({(case.section, case.name) for case in CASES}) == len(CASES)
    assert any(case.outcome.ends == "stream" for case in CASES)
    assert any(case.outcome.ends == "answered" for case in CASES)
