"""The parts of the benchmark beside large work that only compute: etcd's messages, percentiles, stages of slow writes."""

from __future__ import annotations

import pytest

from benchmarks import disk_probe, slow_stages
from benchmarks.beside_etcd import Pooled, table
from benchmarks.compared.wire import field
from benchmarks.etcd_disturbances import below_message, deleted_count, puts_message
from benchmarks.latencies import latencies
from metasrv.model.varints import varint

LINE = (
    "2026-11-27T22:31:00.123Z WARN metasrv.slow_requests: a request took 80 ms, 50 of them in sync method=Transaction"
    ' key="writer/3" outcome=ok total_ms=80.0 queue_ms=10.0 batch_ms=20.0 sync_ms=50.0'
)


def test_a_transaction_of_puts_is_read_by_protobuf_s_rules() -> None:
    put = field(1, b"a") + field(2, b"value")
    assert puts_message(["a", "b"], b"value").startswith(field(2, field(2, put)))


def test_all_keys_below_a_prefix_end_before_the_next_one() -> None:
    assert below_message("removed/0/") == field(1, b"removed/0/") + field(2, b"removed/00")


@pytest.mark.parametrize("count", [1, 127, 128, 20_000])
def test_the_number_of_deleted_keys_is_read(count: int) -> None:
    header = field(1, b"\x08\x01\x10\x02")
    assert deleted_count(header + b"\x10" + varint(count)) == count
    assert deleted_count(header) == 0


def test_percentiles_are_in_milliseconds() -> None:
    found = latencies([0.001 * number for number in range(1_001)])
    assert (found.measured, found.p50, found.p99, found.longest) == (1_001, *map(pytest.approx, (500.0, 990.0, 1_000.0)))
    assert found.p999 == pytest.approx(999.0)


def test_stages_of_slow_writes_are_added_up_and_other_lines_left_out() -> None:
    lines = [LINE, LINE.replace("writer/3", "large/put"), "another line", LINE.replace("batch_ms=20.0 ", "")]
    assert slow_stages.summary(lines, "writer/") == ("2 lines of slow writes, 80 ms each: sync 62%, queue 12%, batch 12%")
    assert slow_stages.summary(["another line"], "writer/") == ""


def test_the_table_has_a_row_for_each_contender() -> None:
    pooled = Pooled([0.001, 0.003], [0.0002, 0.0004], 1)
    rows = table({"alone": {"metasrv": pooled, "etcd 1": pooled}}).splitlines()
    assert rows[2] == "| alone | metasrv | 2 | 2.0 | 3.0 | 3.0 | 3 | 1 | 0.3, 0.4, 0 |"
    assert rows[3].startswith("| alone | etcd 1 |")


def test_the_probe_writes_whole_blocks_and_returns_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []
    now = iter(range(1_000_000))
    monkeypatch.setattr("benchmarks.disk_probe.os.pwrite", lambda _file, data, at: written.append((len(data), at)))
    monkeypatch.setattr("benchmarks.disk_probe.os.fdatasync", lambda _file: None)
    monkeypatch.setattr("benchmarks.disk_probe.time.sleep", lambda _seconds: None)
    monkeypatch.setattr("benchmarks.disk_probe.time.perf_counter", lambda: float(next(now)))
    took = disk_probe.probe(0, 2.0 * disk_probe.BLOCKS + 2.5, 0.0)
    assert set(took) == {1.0}
    assert {size for size, _ in written} == {disk_probe.BLOCK_SIZE_BYTES}
    assert (written[0][1], written[-1][1]) == (0, 0)
    assert len(took) == disk_probe.BLOCKS + 1
