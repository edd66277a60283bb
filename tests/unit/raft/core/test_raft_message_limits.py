"""Raft messages at their limits and one past: those that wait for a step, and the entries of one of them."""

from __future__ import annotations

from pathlib import Path

from metasrv.model.limits import APPEND_MESSAGE_SIZE_BYTES_TARGET, INBOX_MESSAGES_MAX, INBOX_SIZE_BYTES_MAX
from tests.support.raft_bench import NoThread, driver_of, make_bench, noop


async def test_the_inbox_holds_so_many_messages(tmp_path: Path) -> None:
    driver = driver_of(make_bench(tmp_path), NoThread(), [])
    taken = [driver.incoming(1, b"") for _ in range(INBOX_MESSAGES_MAX)]
    assert all(taken)
    assert not driver.incoming(1, b"")
    driver.stop()


async def test_the_inbox_holds_so_many_bytes(tmp_path: Path) -> None:
    driver = driver_of(make_bench(tmp_path), NoThread(), [])
    half = bytes(INBOX_SIZE_BYTES_MAX // 2)
    assert driver.incoming(1, half)
    assert driver.incoming(3, half)
    assert driver.incoming(1, b"")
    assert not driver.incoming(1, b"x")
    driver.stop()


def test_entries_of_one_append_message_stay_within_its_size(tmp_path: Path) -> None:
    quarter = b"\0\1" + bytes(APPEND_MESSAGE_SIZE_BYTES_TARGET // 4 - 2)
    sizes = {}
    for past in (0, 1):
        contents = [quarter, quarter, quarter, quarter + bytes(past), quarter]
        entries = [(content, index, 0) for index, content in enumerate(contents, 2)]
        (tmp_path / str(past)).mkdir()
        bench = make_bench(tmp_path / str(past), entries=entries)
        bench.store.noop_content = noop(2)
        sizes[past] = [len(entry[0]) for entry in bench.engine._SyncObj__getEntries(2, maxSizeBytes=1)]
    assert (sum(sizes[0]), len(sizes[0])) == (APPEND_MESSAGE_SIZE_BYTES_TARGET, 4)
    assert len(sizes[1]) == 3
