"""Transfers that cannot succeed: a disk that takes no snapshot stops the node, and nobody sends in a hot loop."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from metasrv.model.errors import FatalError, StorageError
from metasrv.model.limits import (
    PEER_BUFFER_HIGH_BYTES,
    PEER_BUFFER_SIZE_BYTES_MAX,
    SNAPSHOT_BURST_SIZE_BYTES_MAX,
    SNAPSHOT_CHUNK_SIZE_BYTES_MAX,
)
from metasrv.model.types import LogId
from metasrv.raft.core.messages import SnapshotChunk
from metasrv.raft.log.storage_thread import InlineStorage
from metasrv.raft.observer import RaftObserver, SilentObserver
from metasrv.raft.snapshots import BURST_SECONDS, RESEND_SECONDS, Snapshots
from metasrv.state.snapshot import SnapshotInfo
from metasrv.testing.hand_clock import HandClock


class Node:
    """The snapshots of one node, with what they tell it."""

    def __init__(self, directory: Path, chunk_size_bytes: int = 4096, observer: RaftObserver | None = None) -> None:
        self.directory = directory
        self.clock = HandClock()
        self.failures: list[FatalError] = []
        self.snapshots = Snapshots(
            directory=str(directory),
            state_path=str(directory / "state.db"),
            thread=InlineStorage(lambda done: done()),
            clock=self.clock,
            observer=observer or SilentObserver(),
            cluster_id=lambda: None,
            tail_at=lambda _index: None,
            verified=lambda _info: None,
            failed=self.failures.append,
            chunk_size_bytes=chunk_size_bytes,
            receive_timeout_seconds=4.0,
        )

    def have_snapshot(self, index: int, content: bytes = b"x" * 5000) -> None:
        path = self.directory / f"1-1-{index}-1.snap"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        self.snapshots.newest = SnapshotInfo(str(path), LogId(1, index, 1), 1, 0, len(content), digest)

    def send_whole(self, to_id: int) -> int:
        """Send chunks as the engine does; how many there were."""
        count = 0
        while True:
            chunk, is_last = self.snapshots.next_chunk(to_id)
            if chunk is None:
                return count
            count += 1
            if is_last:
                return count


def never(*_arguments: int) -> bool:
    return False


def test_one_step_sends_no_more_of_a_snapshot_than_the_peer_s_buffer_takes(tmp_path: Path) -> None:
    """A piece that was refused would leave a gap, and a snapshot above the buffer's size would never arrive whole."""
    node = Node(tmp_path)
    node.have_snapshot(7, b"x" * (SNAPSHOT_BURST_SIZE_BYTES_MAX + 10_000))
    sent_bytes, offsets = 0, []
    while (chunk := node.snapshots.next_chunk(2)[0]) is not None:
        offsets.append(chunk.offset_bytes)
        sent_bytes += len(chunk.data)
    assert sent_bytes == SNAPSHOT_BURST_SIZE_BYTES_MAX
    assert SNAPSHOT_BURST_SIZE_BYTES_MAX + PEER_BUFFER_HIGH_BYTES < PEER_BUFFER_SIZE_BYTES_MAX
    node.clock.now += 2 * BURST_SECONDS
    chunk, is_last = node.snapshots.next_chunk(2)
    assert chunk is not None
    assert chunk.offset_bytes == sent_bytes, "it goes on where it was"
    assert not is_last
    node.snapshots.peer_gone(2)


@pytest.mark.parametrize("past", [0, 1])
def test_a_chunk_is_no_larger_than_its_limit_whatever_is_configured(tmp_path: Path, past: int) -> None:
    node = Node(tmp_path, chunk_size_bytes=SNAPSHOT_CHUNK_SIZE_BYTES_MAX + past)
    node.have_snapshot(7, bytes(SNAPSHOT_CHUNK_SIZE_BYTES_MAX + 1))
    chunk, is_last = node.snapshots.next_chunk(2)
    assert chunk is not None
    assert (len(chunk.data), is_last) == (SNAPSHOT_CHUNK_SIZE_BYTES_MAX, False)
    chunk, is_last = node.snapshots.next_chunk(2)
    assert chunk is not None
    assert (len(chunk.data), is_last) == (1, True)
    node.snapshots.peer_gone(2)


def test_a_transfer_that_nobody_goes_on_with_lets_the_log_be_purged(tmp_path: Path) -> None:
    """A leader that was deposed in the middle of one would otherwise keep every entry from there on (R5)."""
    node = Node(tmp_path)
    node.have_snapshot(10)
    first, _ = node.snapshots.next_chunk(2)
    node.snapshots.next_chunk(3)
    assert first is not None
    assert node.snapshots.purge_floor() == 9
    node.snapshots.end_unwanted(lambda node_id: node_id == 3, never)
    assert node.snapshots.purge_floor() == 9, "one of two goes on"
    node.snapshots.end_unwanted(lambda _node_id: False, never)
    assert node.snapshots.purge_floor() is None
    again, _ = node.snapshots.next_chunk(2)
    assert again is not None
    assert (again.offset_bytes, again.transfer_id == first.transfer_id) == (0, False), "it does not resume in the middle"
    node.snapshots.peer_gone(2)


def test_the_log_behind_a_whole_snapshot_stays_until_the_peer_has_put_it_in_place(tmp_path: Path) -> None:
    """Purged meanwhile, it left the peer as far behind as before: under load it never caught up (R7)."""
    node = Node(tmp_path)
    node.have_snapshot(10)
    assert node.send_whole(2) == 2
    node.snapshots.end_unwanted(lambda _node_id: False, lambda node_id, index: (node_id, index) == (2, 10))
    assert node.snapshots.purge_floor() == 9
    node.snapshots.end_unwanted(lambda _node_id: False, never)
    assert node.snapshots.purge_floor() is None


class Sent(SilentObserver):
    """Remembers the outcomes of transfers."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, float, bool]] = []
        self.under_way = 0

    def snapshot_sending(self, to_id: int, change: int) -> None:
        self.under_way += change

    def snapshot_sent(self, to_id: int, seconds: float, success: bool) -> None:
        self.outcomes.append((to_id, seconds, success))


def test_a_snapshot_counts_as_sent_when_the_peer_says_that_it_has_it(tmp_path: Path) -> None:
    observer = Sent()
    node = Node(tmp_path, observer=observer)
    node.have_snapshot(10)
    known: set[int] = set()
    node.snapshots.has = lambda node_id, _index: node_id in known
    for node_id in (2, 3):
        node.send_whole(node_id)
    assert (observer.under_way, observer.outcomes) == (0, []), "the peers check it"
    node.clock.now += 2.5
    node.send_whole(2)  # again: it may not have come
    node.snapshots.end_unwanted(never, lambda _node_id, _index: True)
    assert observer.outcomes == []
    known.add(2)
    node.snapshots.end_unwanted(never, lambda node_id, _index: node_id == 3)
    assert observer.outcomes == [(2, 2.5, True)], "from when it was sent first"
    node.snapshots.peer_gone(3)
    assert observer.outcomes[1:] == [(3, 2.5, False)]
    node.clock.now += RESEND_SECONDS
    node.send_whole(3)
    node.snapshots.end_unwanted(never, never)  # this node does not lead any more
    assert observer.outcomes[2:] == [(3, 0.0, False)]


def test_a_log_that_was_purged_all_the_same_is_not_held_back_any_more(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.have_snapshot(10)
    assert node.send_whole(2) == 2
    node.snapshots.usable = lambda index: index >= 12
    node.have_snapshot(15)
    assert node.send_whole(3) == 2
    assert node.snapshots.purge_floor() == 14


def test_a_leader_of_a_later_term_need_not_wait_for_what_an_earlier_one_began_to_send(tmp_path: Path) -> None:
    """Its entries went unheard until no piece had come for the whole timeout of a transfer."""
    node = Node(tmp_path)
    node.snapshots.receive(2, first_chunk(b"x" * 100))
    assert node.snapshots.receiving(1), "its sender still leads"
    assert node.snapshots.receiving(), "nobody asks for a leader"
    assert not node.snapshots.receiving(2)
    assert not node.snapshots.receiving(1)


def first_chunk(data: bytes) -> SnapshotChunk:
    return SnapshotChunk(1, 0, "transfer", 0, 2 * len(data), "0" * 64, data)


def test_a_full_disk_that_takes_no_snapshot_stops_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could never catch up, and would ask for the snapshot again and again without a word to the operator."""
    monkeypatch.setattr("metasrv.raft.snapshots.open_private", lambda _path, flags: os.open("/dev/full", flags))
    node = Node(tmp_path)
    node.snapshots.receive(2, first_chunk(b"x" * 100))
    [failure] = node.failures
    assert isinstance(failure, StorageError)
    assert "incoming.tmp cannot be written" in str(failure)
    assert not node.snapshots.receiving()


def test_a_piece_that_is_written_in_part_stops_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    node.snapshots.receive(2, first_chunk(b"x" * 100))

    class AlmostFull:
        def write(self, data: bytes) -> int:
            return len(data) - 1

        def close(self) -> None:
            return None

    incoming = node.snapshots._incoming
    assert incoming is not None
    incoming.file.close()
    monkeypatch.setattr(incoming, "file", AlmostFull())
    node.snapshots.receive(2, SnapshotChunk(1, 0, "transfer", 100, 200, "0" * 64, b"y" * 100))
    assert ["the disk is full" in str(failure) for failure in node.failures] == [True]


def test_a_snapshot_that_did_not_help_is_not_sent_again_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.have_snapshot(10)
    assert node.send_whole(2) == 2
    assert node.send_whole(2) == 0, "the peer is still checking it, or refused it"
    assert node.send_whole(3) == 2, "another peer has not had it"
    node.clock.now += RESEND_SECONDS
    assert node.send_whole(2) == 2
    assert not node.snapshots.needed


def test_a_newer_snapshot_or_a_new_connection_does_not_wait(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.have_snapshot(10)
    assert node.send_whole(2) == 2
    node.snapshots.peer_gone(2)
    assert node.send_whole(2) == 2
    node.have_snapshot(20)
    assert node.send_whole(2) == 2


def test_a_snapshot_that_can_not_be_written_is_not_begun_again_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert node.snapshots.next_chunk(2) == (None, False)
    assert node.snapshots.needed
    node.snapshots.build(applied_index=10)  # there is no state file to copy
    assert not node.snapshots.building
    assert node.snapshots.next_chunk(2) == (None, False)
    assert not node.snapshots.needed
    node.clock.now += RESEND_SECONDS
    assert node.snapshots.next_chunk(2) == (None, False)
    assert node.snapshots.needed


def test_a_snapshot_file_that_somebody_removed_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path)
    node.have_snapshot(10)
    (tmp_path / "1-1-10-1.snap").unlink()
    monkeypatch.setattr(os.path, "exists", lambda _path: True)  # it goes between a look and the opening
    assert node.snapshots.next_chunk(2) == (None, False)
    assert node.snapshots.needed
