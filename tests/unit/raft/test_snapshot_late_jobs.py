"""Jobs of the snapshot thread that run late, on a slow disk: things are no longer as they were when they were given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from metasrv.raft.core.messages import SnapshotChunk
from metasrv.raft.log.storage_thread import InlineStorage, Storage
from metasrv.raft.observer import SilentObserver
from metasrv.raft.snapshots import INCOMING_NAME, Snapshots
from metasrv.state.machine import StateMachine
from metasrv.testing.hand_clock import HandClock
from tests.support.state_bench import Bench


class SlowThread:
    """Keeps its jobs until it is told to do the oldest; takes none after its end, as the real one."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.stopping = False

    def submit(
        self, function: Callable[..., Any], *args: Any, on_done: Callable[[Any, BaseException | None], None]
    ) -> None:
        assert not self.stopping, "work was given after the end"
        self.jobs.append(lambda: on_done(function(*args), None))

    async def run(self, *_args: object) -> Any:
        raise AssertionError("nothing waits for this thread")

    async def stop(self) -> None:
        self.stopping = True

    def work(self) -> None:
        self.jobs.pop(0)()


def snapshots_of(directory: Path, thread: Storage | SlowThread) -> Snapshots:
    return Snapshots(
        directory=str(directory),
        state_path=str(directory / "state.db"),
        thread=cast(Storage, thread),
        clock=HandClock(),
        observer=SilentObserver(),
        cluster_id=lambda: None,
        tail_at=lambda index: ((b"\x01", index - 1, 1), (b"\x01", index, 1)),
        verified=lambda _info: None,
        failed=lambda _error: None,
        chunk_size_bytes=4096,
        receive_timeout_seconds=4.0,
    )


def test_clearing_up_after_an_earlier_run_leaves_a_transfer_alone_that_began_since(tmp_path: Path) -> None:
    """The file was gone when it came to be checked, and the node stopped for it."""
    thread = SlowThread()
    snapshots = snapshots_of(tmp_path, thread)
    incoming = tmp_path / INCOMING_NAME
    incoming.write_bytes(b"what an earlier run left")
    snapshots.load_existing()
    snapshots.receive(1, SnapshotChunk(1, 0, "transfer", 0, 100, "0" * 64, b"the first piece"))
    thread.work()
    assert incoming.read_bytes() == b"the first piece"
    assert [path.name for path in tmp_path.iterdir()] == [INCOMING_NAME], "what an earlier run left is gone"
    snapshots.close()


def test_a_snapshot_that_is_asked_for_before_anything_is_applied_is_written_once_something_is(tmp_path: Path) -> None:
    """The route answered 200, and nothing happened."""
    thread = SlowThread()
    StateMachine.open(str(tmp_path / "state.db")).close()
    snapshots = snapshots_of(tmp_path, thread)
    snapshots.request(1)
    assert (snapshots.needed, thread.jobs) == (True, [])
    snapshots.build(1)  # as each step does while one is needed
    assert snapshots.needed
    snapshots.build(2)
    assert (snapshots.needed, snapshots.building, len(thread.jobs)) == (False, True, 1)
    snapshots.request(3)
    assert (snapshots.needed, len(thread.jobs)) == (False, 1), "one is being written"
    snapshots.close()


def test_a_snapshot_that_is_pinned_after_the_end_is_not_written(tmp_path: Path) -> None:
    """An orderly stop waits for the thread's jobs, and this one gave it another."""
    thread = SlowThread()
    StateMachine.open(str(tmp_path / "state.db")).close()
    snapshots = snapshots_of(tmp_path, thread)
    snapshots.build(5)
    snapshots.close()
    asyncio.run(thread.stop())
    thread.work()
    assert not thread.jobs
    assert not snapshots.building


def test_a_snapshot_that_is_asked_for_has_all_that_is_applied(tmp_path: Path) -> None:
    """Its writer has a connection of its own: the last entries, in a transaction that is still open, were not there."""
    bench = Bench(tmp_path)
    bench.machine.commits_later = True
    bench.put("a")
    bench.put("b")
    snapshots = snapshots_of(tmp_path, InlineStorage(lambda done: done()))
    snapshots.commit = bench.machine.commit
    snapshots.request(bench.machine.last_applied.index)
    assert snapshots.newest is not None
    assert snapshots.newest.log_id == bench.machine.last_applied
    assert snapshots.newest.key_count == 2
    bench.machine.close()
    snapshots.close()
