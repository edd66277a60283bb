"""The parts of the comparison with etcd that only compute: bytes of requests, ratios, tables and pictures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import hpack
import pytest

from benchmarks.compared import report, wire
from benchmarks.compared.etcd_cluster import EtcdCluster
from benchmarks.compared.loads import Turn
from metasrv.model.types import Endpoint
from metasrv.protocol.proto import meta_pb2 as pb

ENDPOINT = Endpoint("127.0.0.1", 9191)


def turn(per_second: float) -> Turn:
    return Turn(per_second, 1.0, 2.0, 100.0, 50.0)


@pytest.fixture
def results() -> report.Results:
    rows = [
        report.Row(
            "write", "writes of one key", 16, {"metasrv": [turn(100), turn(300), turn(120)], "etcd 1": [turn(200)] * 3}
        )
    ]
    events = {"a leader lost": {"metasrv": {"p50_s": 0.1, "leader_mib": 123.4}}}
    return report.Results("2 cores", "2026-11-27 20:00", 0.5, ["etcd 1"], rows, events)


def test_a_header_block_is_read_by_any_decoder_and_remembered_by_none() -> None:
    decoder = hpack.Decoder()
    block = wire.header_block(ENDPOINT, "/a.B/C", {"long": "x" * 300})
    assert [(str(name), str(value)) for name, value in decoder.decode(block)] == [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a.B/C"),
        (":authority", "127.0.0.1:9191"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("long", "x" * 300),
    ]
    assert len(decoder.header_table.dynamic_entries) == 0


def test_a_large_message_leaves_in_frames_of_which_the_last_ends_the_stream() -> None:
    frames = wire.data_frames(7, b"x" * 40_000, last=True)
    sizes, flags = [], []
    while frames:
        size = int.from_bytes(frames[:3], "big")
        sizes.append(size)
        flags.append(frames[4])
        assert int.from_bytes(frames[5:9], "big") == 7
        frames = frames[9 + size :]
    assert sizes == [16_384, 16_384, 7_232]
    assert flags == [0, 0, wire.END_STREAM]


def test_fields_of_protobuf_are_those_that_the_library_writes() -> None:
    put = pb.TxnPutRequest(key="k" * 200, value=b"v")
    assert wire.field(1, b"k" * 200) + wire.field(2, b"v") == put.SerializeToString()


def test_a_list_of_etcd_ends_before_the_next_prefix() -> None:
    call = EtcdCluster.list(None, "a/")  # type: ignore[arg-type]  # needs nothing of a cluster
    assert call.message == wire.field(1, b"a/") + wire.field(2, b"a0")


def test_a_ratio_is_the_median_of_neighbouring_turns(results: report.Results) -> None:
    row = results.rows[0]
    assert row.ratio("etcd 1") == 0.6
    assert row.spread("etcd 1") == (0.5, 1.5)


def test_the_table_has_every_figure_and_says_what_is_missing(results: report.Results) -> None:
    table = report.markdown(results)
    assert "| writes of one key | 16 | 120/s | 200/s | **0.60** (0.50–1.50) | 2.0 / 2.0 | 100, 50 / 100, 50 |" in table
    assert "| a leader lost | p50 0.1 s, leader 123 MiB | not measured |" in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    for line in rows[:3]:
        assert line.count("|") == rows[0].count("|")


def test_the_picture_is_a_well_formed_svg_with_a_bar_for_each_ratio(results: report.Results) -> None:
    picture = report.ratios_picture(results)
    root = ElementTree.fromstring(picture)
    bars = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.get("height") != root.get("height")]
    assert len(bars) == 2  # the ground and one bar
    assert re.search(r"<title>etcd 1: 0.60</title>", picture)
