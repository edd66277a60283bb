"""Snapshot files: written on demand, sent to peers that lag, received, checked and put in place.

A snapshot is a copy of the state file that also holds the log's last two entries. Writing and checking run in the
snapshot thread. The event loop itself reads the pieces that it sends and writes those that it receives, a few megabytes a
step at most, through the system's file cache. Nothing is installed before its digest, its structure and its cluster were
checked (D10), and nothing older than the current state ever is.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from typing import BinaryIO

from metasrv.model.errors import DataDamagedError, FatalError, StoppingError, StorageError
from metasrv.model.limits import SNAPSHOT_BURST_SIZE_BYTES_MAX, SNAPSHOT_CHUNK_SIZE_BYTES_MAX
from metasrv.model.types import LogId
from metasrv.process.clock import Clock
from metasrv.process.private_files import open_private
from metasrv.raft.core.messages import SnapshotChunk
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.storage_thread import Storage
from metasrv.raft.observer import RaftObserver
from metasrv.raft.snapshot_files import finished_files, size_of_files
from metasrv.state.conversion import accept_snapshot
from metasrv.state.snapshot import SnapshotInfo, SnapshotTail, SnapshotWriter, verify_snapshot

logger = logging.getLogger(__name__)

INCOMING_NAME = "incoming.tmp"
_LEFTOVER_NAME = "leftover.tmp"
_DRAFT_ENDINGS = (".tmp", ".tmp-journal")
KEPT_FILES = 2
RESEND_SECONDS = 1.0
"""Time before the same snapshot is sent again to a peer that still lags: it may be checking it, or could not use it."""

BURST_SECONDS = 0.01
"""Longer than one step sends, shorter than the pause between two."""


class _Outgoing:
    """One transfer to one peer."""

    def __init__(self, info: SnapshotInfo, started_at: float) -> None:
        self.info = info
        self.transfer_id = secrets.token_hex(8)
        self.file: BinaryIO = open(info.path, "rb")  # noqa: SIM115  # closed by `Snapshots._end`
        self.offset_bytes = 0
        self.started_at = started_at
        self.burst_at = started_at
        self.burst_bytes = 0


class _Incoming:
    """One transfer from the leader."""

    def __init__(self, node_id: int, chunk: SnapshotChunk, path: str, now: float) -> None:
        self.node_id = node_id
        self.transfer_id = chunk.transfer_id
        self.term = chunk.term
        self.path = path
        self.file: BinaryIO = open(path, "wb", 0, opener=open_private)  # noqa: SIM115  # closed when complete or abandoned
        self.received_bytes = 0
        self.started_at = now
        self.last_chunk_at = now
        self.checking = False


class Snapshots:
    """The snapshot files of one node. `directory` exists; `tail_at(index)` reads two entries of the log."""

    def __init__(
        self,
        *,
        directory: str,
        state_path: str,
        thread: Storage,
        clock: Clock,
        observer: RaftObserver,
        cluster_id: Callable[[], str | None],
        tail_at: Callable[[int], tuple[LogEntry, LogEntry] | None],
        verified: Callable[[SnapshotInfo], None],
        failed: Callable[[FatalError], None],
        chunk_size_bytes: int,
        receive_timeout_seconds: float,
    ) -> None:
        self._directory = directory
        self._state_path = state_path
        self._thread = thread
        self._clock = clock
        self._observer = observer
        self._cluster_id = cluster_id
        self._tail_at = tail_at
        self._verified = verified
        self._failed = failed
        self._chunk_size_bytes = min(chunk_size_bytes, SNAPSHOT_CHUNK_SIZE_BYTES_MAX)
        self._receive_timeout = receive_timeout_seconds
        self._outgoing: dict[int, _Outgoing] = {}
        self._sent: dict[int, tuple[LogId, float]] = {}
        """The last whole snapshot sent to each peer that has not yet put it in place, and when it was sent."""
        self._build_again_at = 0.0
        self._unanswered: dict[int, float] = {}
        """When the first transfer to a peer began that was sent whole and has not yet been acknowledged."""
        self._incoming: _Incoming | None = None
        self.newest: SnapshotInfo | None = None
        self.building = False
        self.failures = 0  # how many could not be written
        self._closed = False
        self.needed = False
        """A peer or an operator asked for a snapshot that is not there; a step starts one once there is a state."""
        self.pinned_index: int | None = None
        """Log entries from here on must not be purged: a snapshot being written needs them."""
        self.takes: Callable[[int], bool] = lambda _node_id: True
        """Whether a peer may be sent a snapshot; one whose directory is not admitted cannot say that it has it."""
        self.has: Callable[[int, int], bool] = lambda _node_id, _index: False
        """Whether this leader knows that the peer has the entry at this index."""
        self.commit: Callable[[], None] = lambda: None
        """Lets the writer of snapshots, which has a connection of its own, see all that is applied."""
        self.usable: Callable[[int], bool] = lambda _index: True
        """Whether the log still continues a snapshot that ends at this index."""

    # ------------------------------------------------------------------ writing

    def load_existing(self) -> None:
        """At start, have the snapshot thread look at the newest file that an earlier run left.

        The thread may do so only after a new transfer has begun, so the file to be removed is renamed now.
        """
        incoming = os.path.join(self._directory, INCOMING_NAME)
        try:
            if self._incoming is None and os.path.exists(incoming):
                os.replace(incoming, os.path.join(self._directory, _LEFTOVER_NAME))
        except OSError as error:
            logger.warning("an unfinished snapshot of an earlier run stays until the next one replaces it: %s", error)

        def looked(info: SnapshotInfo | None, error: BaseException | None) -> None:
            if error is not None:
                logger.warning("an earlier snapshot file is not used: %s", error)
            elif info is not None and self.newest is None:
                self.newest = info

        self._thread.submit(self._look, on_done=looked)

    def _look(self) -> SnapshotInfo | None:
        for name in os.listdir(self._directory):
            # A transfer that has begun meanwhile writes to INCOMING_NAME; all other drafts are of an earlier run.
            if name != INCOMING_NAME and name.endswith(_DRAFT_ENDINGS):
                os.unlink(os.path.join(self._directory, name))
        files = finished_files(self._directory)
        return verify_snapshot(files[-1], None, self._cluster_id()) if files else None

    def files_size_bytes(self) -> int:
        """Bytes of all snapshot files, and of those that are being written or received."""
        return size_of_files(self._directory)

    def purge_floor(self) -> int | None:
        """The first index of the log that snapshots still need, None when they need none."""
        indexes = [transfer.info.log_id.index for transfer in self._outgoing.values()]
        indexes += [log_id.index for log_id, _ in self._sent.values()]
        if self.pinned_index is not None:
            indexes.append(self.pinned_index)
        indexes = [index for index in indexes if self.usable(index)]
        return min(indexes) - 1 if indexes else None

    def request(self, applied_index: int) -> None:
        """Have a new file written: at once, or as soon as something has been applied. No effect while one is written."""
        if not self.building:
            self.needed = True
            self.build(applied_index)

    def build(self, applied_index: int) -> None:
        """Start writing a new snapshot file in the snapshot thread.

        No effect while one is being written, nor before the second entry is applied: a snapshot carries two.
        """
        if self.building or applied_index < 2:
            return
        self.commit()
        self.building = True
        self.needed = False
        self.pinned_index = applied_index
        writer = SnapshotWriter(self._state_path)

        def finished(info: SnapshotInfo | None, error: BaseException | None) -> None:
            self.building = False
            self.pinned_index = None
            if error is not None or info is None:
                logger.error("the snapshot could not be written: %s", error)
                self.failures += 1
                self._observer.storage_failed("snapshot", write=True)
                self._build_again_at = self._clock.monotonic() + RESEND_SECONDS
            else:
                self.newest = info
                self._observer.snapshot_written(info.key_count + info.expire_count)
                logger.info("snapshot %s written up to %s, %d bytes", info.path, info.log_id, info.size_bytes)

        def pinned(log_id: LogId | None, error: BaseException | None) -> None:
            tail = None if log_id is None else self._tail_at(log_id.index)
            if log_id is None or tail is None or self._closed:
                writer.close()
                missing = "the log no longer holds the entries that the snapshot must carry"
                finished(None, error or (StoppingError() if self._closed else StorageError(missing)))
                return
            name = f"{log_id.term}-{log_id.node_id}-{log_id.index}-{self._clock.wall_ms()}.snap"
            path = os.path.join(self._directory, name)
            self._thread.submit(self._write, writer, path, SnapshotTail(*tail), on_done=finished)

        self._thread.submit(writer.pin, on_done=pinned)

    def _write(self, writer: SnapshotWriter, path: str, tail: SnapshotTail) -> SnapshotInfo:
        """In the snapshot thread: write the file, then drop older ones."""
        info = writer.write(path, tail)
        for old in finished_files(self._directory)[:-KEPT_FILES]:
            if old != info.path:
                os.unlink(old)  # a transfer that still reads it keeps its open file
        return info

    # ------------------------------------------------------------------ sending (called by the engine)

    def next_chunk(self, node_id: int) -> tuple[SnapshotChunk | None, bool]:
        """The next piece for a peer; asks for a new snapshot when the log does not continue the newest one."""
        transfer = self._outgoing.get(node_id)
        if not self.takes(node_id):
            return None, False
        if transfer is None:
            info = self.newest
            if info is None or not self.usable(info.log_id.index):
                self._need_another()
                return None, False
            sent, sent_at = self._sent.get(node_id, (None, 0.0))
            if sent == info.log_id and self._clock.monotonic() - sent_at < RESEND_SECONDS:
                return None, False
            try:
                transfer = self._outgoing[node_id] = _Outgoing(info, self._clock.monotonic())
            except OSError:  # somebody removed the file: it is no more than a copy of the state
                self._need_another()
                return None, False
            self._observer.snapshot_sending(node_id, +1)
            logger.info("sending snapshot up to %s to node %d", info.log_id, node_id)
        if self._burst_is_over(transfer):
            return None, False
        data = transfer.file.read(self._chunk_size_bytes)
        chunk = SnapshotChunk(
            0, 0, transfer.transfer_id, transfer.offset_bytes, transfer.info.size_bytes, transfer.info.sha256, data
        )
        transfer.offset_bytes += len(data)
        transfer.burst_bytes += len(data)
        is_last = transfer.offset_bytes >= transfer.info.size_bytes or not data
        if is_last:
            self._sent[node_id] = (transfer.info.log_id, self._clock.monotonic())
            self._unanswered.setdefault(node_id, self._end(node_id).started_at)
        return chunk, is_last

    def _need_another(self) -> None:
        self.needed = self._clock.monotonic() >= self._build_again_at

    def _burst_is_over(self, transfer: _Outgoing) -> bool:
        """Whether this step has sent enough: a piece that the peer's buffer does not take breaks the transfer."""
        now = self._clock.monotonic()
        if now - transfer.burst_at > BURST_SECONDS:
            transfer.burst_at = now
            transfer.burst_bytes = 0
        return transfer.burst_bytes >= SNAPSHOT_BURST_SIZE_BYTES_MAX

    def end_unwanted(self, wants: Callable[[int], bool], lags: Callable[[int, int], bool]) -> None:
        """End transfers that nobody needs, which keep the log from being purged and could resume in the middle later.

        `wants(peer)`: whether the peer needs a snapshot; `lags(peer, index)`: whether it is still behind `index`.
        """
        for node_id in [i for i in self._outgoing if not (wants(i) and self.takes(i))]:
            logger.info(
                "the snapshot for node %d is not sent to its end: it is not needed, or this node no longer leads",
                node_id,
            )
            self._break_off(node_id)
        for node_id in [i for i, (log_id, _) in self._sent.items() if not lags(i, log_id.index)]:
            self._answered(node_id, success=self.has(node_id, self._sent.pop(node_id)[0].index))

    def peer_gone(self, node_id: int) -> None:
        self._sent.pop(node_id, None)
        self._answered(node_id, success=False)
        if node_id in self._outgoing:
            self._break_off(node_id)

    def _end(self, node_id: int) -> _Outgoing:
        transfer = self._outgoing.pop(node_id)
        transfer.file.close()
        self._observer.snapshot_sending(node_id, -1)
        return transfer

    def _break_off(self, node_id: int) -> None:
        self._observer.snapshot_sent(node_id, self._clock.monotonic() - self._end(node_id).started_at, False)

    def _answered(self, node_id: int, success: bool) -> None:
        """Count a snapshot that was sent to its end, now that it is known what became of it."""
        started_at = self._unanswered.pop(node_id, None)
        if started_at is not None:
            self._observer.snapshot_sent(node_id, self._clock.monotonic() - started_at, success)

    # ------------------------------------------------------------------ receiving

    def receiving(self, leader_term: int = 0) -> bool:
        """Whether a snapshot is on its way or being checked; meanwhile the old log is not matched against anything (D1).

        `leader_term` is that of a leader that sends entries: a leader of a later term will not continue the transfer.
        """
        incoming = self._incoming
        if incoming is None:
            return False
        if not incoming.checking:
            if self._clock.monotonic() - incoming.last_chunk_at > self._receive_timeout:
                self._abandon(f"no piece of it came for {self._receive_timeout:.1f} s")
            elif incoming.term < leader_term:
                self._abandon("its sender does not lead any more")
        return self._incoming is not None

    def receive(self, node_id: int, chunk: SnapshotChunk) -> None:
        """Take one piece from the leader; the last one starts the check."""
        now = self._clock.monotonic()
        incoming = self._incoming
        if incoming is not None and incoming.checking:
            return
        if chunk.offset_bytes == 0:
            if incoming is not None:
                self._abandon("the leader began anew")
            incoming = self._begin(node_id, chunk, now)
        if incoming is None or incoming.transfer_id != chunk.transfer_id:
            return
        if chunk.offset_bytes != incoming.received_bytes:
            self._abandon(f"a piece is missing at byte {incoming.received_bytes}")
            return
        try:
            written = incoming.file.write(chunk.data)
        except OSError as error:
            self._refused_by_disk(f"{incoming.path} cannot be written: {error}")
            return
        if written != len(chunk.data):
            self._refused_by_disk(f"{incoming.path} cannot be written: the disk is full")
            return
        incoming.received_bytes += len(chunk.data)
        incoming.last_chunk_at = now
        if incoming.received_bytes >= chunk.size_bytes or not chunk.data:
            self._check(incoming, chunk)

    def _begin(self, node_id: int, chunk: SnapshotChunk, now: float) -> _Incoming | None:
        path = os.path.join(self._directory, INCOMING_NAME)
        try:
            incoming = _Incoming(node_id, chunk, path, now)
        except OSError as error:
            self._refused_by_disk(f"the leader's snapshot cannot be stored in {path}: {error.strerror}")
            return None
        self._incoming = incoming
        self._observer.snapshot_receiving(node_id, +1)
        logger.info("receiving a snapshot of %d bytes from node %d", chunk.size_bytes, node_id)
        return incoming

    def _refused_by_disk(self, why: str) -> None:
        """Stop the node: without the snapshot it can never catch up (invariant 9)."""
        self._observer.storage_failed("snapshot", write=True)
        self._abandon(why)
        self._failed(StorageError(why))

    def _check(self, incoming: _Incoming, chunk: SnapshotChunk) -> None:
        incoming.checking = True
        incoming.file.close()

        def checked(info: SnapshotInfo | None, error: BaseException | None) -> None:
            if error is not None or info is None:
                reason = error if isinstance(error, DataDamagedError) else f"it cannot be checked: {error}"
                self._abandon(str(reason))
                if isinstance(error, StorageError):
                    self._failed(error)
                return
            self._verified(info)

        self._thread.submit(accept_snapshot, incoming.path, chunk.sha256, self._cluster_id(), on_done=checked)

    def finish_receiving(self, success: bool) -> None:
        """The checked snapshot is installed, or not needed, or was given up."""
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        self._observer.snapshot_receiving(incoming.node_id, -1)
        seconds = self._clock.monotonic() - incoming.started_at
        self._observer.snapshot_received(incoming.node_id, seconds, success)

    def _abandon(self, why: str) -> None:
        if self._incoming is not None:
            logger.warning("the snapshot from node %d is given up: %s", self._incoming.node_id, why)
            self._incoming.file.close()
        self.finish_receiving(success=False)

    def close(self) -> None:
        self._closed = True
        for node_id in list(self._outgoing):
            self._break_off(node_id)
        if self._incoming is not None:
            self._incoming.file.close()
