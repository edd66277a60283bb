"""A workbench for tests of `metasrv.raft`: one engine with its log, and lists in place of disk, wire and state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasrv.model.entries import encode_membership_entry, encode_noop_entry, encode_regular_entry
from metasrv.model.types import Endpoint, Member, Membership
from metasrv.process.loop_steps import StepLaps
from metasrv.raft.core.driver import Driver, DriverHandlers
from metasrv.raft.core.engine import Engine
from metasrv.raft.core.guards import ElectionStep, Guards
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.messages import AppendEntries, Message, SnapshotChunk, decode_message
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.core.step import Core, CoreHandlers, CoreSettings
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore
from metasrv.raft.observer import SilentObserver
from metasrv.testing.hand_clock import HandClock

FIRST_ENTRY: LogEntry = (b"\x01", 1, 0)


def member(node_id: int) -> Member:
    return Member(Endpoint("127.0.0.1", 28100 + node_id), f"directory-{node_id}")


def membership(*voters: int, learners: tuple[int, ...] = ()) -> Membership:
    return Membership({i: member(i) for i in voters}, {i: member(i) for i in learners})


def regular(number: int) -> bytes:
    return encode_regular_entry(number, 1, [])


def noop(leader_id: int) -> bytes:
    return encode_noop_entry(leader_id)


def change(before: Membership, after: Membership) -> bytes:
    return encode_membership_entry(1, before, after)


class NoSnapshots:
    """A leader that has no snapshot ready."""

    def next_chunk(self, node_id: int) -> tuple[SnapshotChunk | None, bool]:
        return None, False


def no_laps() -> StepLaps:
    return StepLaps(lambda _work, _seconds: None)


@dataclass
class Bench:
    """A core with its engine and guards, and what they said and applied."""

    store: LogStore
    core: Core
    clock: HandClock
    applied: list[tuple[bytes, int, int]]
    reachable: set[int]
    receiving: bool = False
    elections: Callable[[ElectionStep, int, int], None] = lambda _step, _node_id, _term: None
    membership_changed: Callable[[Membership], None] = lambda _membership: None

    @property
    def engine(self) -> Engine:
        return self.core.engine

    @property
    def guards(self) -> Guards:
        return self.core.guards

    @property
    def reads(self) -> ReadIndex:
        return self.core.reads

    @property
    def sent(self) -> list[tuple[int, Message]]:
        """What was said and not yet taken."""
        return self.core._outbox

    def take(self) -> list[tuple[int, Message]]:
        sent, self.core._outbox = self.core._outbox, []
        return sent

    def indexes(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.store[:]]

    def append(self, term: int, previous: tuple[int, int], entries: list[LogEntry], commit: int = 0) -> AppendEntries:
        return AppendEntries(term, commit, *previous, tuple(entries), 0)


def make_bench(
    directory: Path,
    *,
    own_id: int = 2,
    voters: tuple[int, ...] = (1, 2, 3),
    entries: list[LogEntry] | None = None,
    applied_index: int = 1,
    term: int = 0,
    clock: HandClock | None = None,
    laps: StepLaps | None = None,
) -> Bench:
    store = LogStore.open(str(directory / "raft.db"), create_entries=[FIRST_ENTRY, *(entries or [])])
    store.take_pending()
    if term:
        store.setCurrentTerm(term, None)
    clock = clock or HandClock()
    bench: Bench
    applied: list[tuple[bytes, int, int]] = []
    core = Core(
        settings=CoreSettings(own_id, f"directory-{own_id}", 0.1, (0.4, 0.6)),
        clock=clock,
        store=store,
        membership=membership(*voters),
        applied_index=applied_index,
        log_time=LogTime(clock, 0),
        handlers=CoreHandlers(
            apply=lambda content, index, term: applied.append((content, index, term)),
            membership_changed=lambda changed: bench.membership_changed(changed),
            election=lambda step, node_id, term: bench.elections(step, node_id, term),
            may_stand=lambda: True,
            reachable=lambda node_id: node_id in bench.reachable,
            snapshots=NoSnapshots(),
            snapshot_chunk=lambda _node_id, _chunk: None,
            snapshot_expected=lambda _term: bench.receiving,
            append_acknowledged=lambda _node_id, _seconds: None,
        ),
        laps=laps or no_laps(),
    )
    bench = Bench(store, core, clock, applied, set(voters) - {own_id})
    return bench


class NoThread:
    """Takes one write and is asked to finish it."""

    def __init__(self) -> None:
        self.finish: Callable[[object, BaseException | None], None] | None = None

    def submit(self, _function: object, *_args: object, on_done: Callable[[Any, BaseException | None], None]) -> None:
        self.finish = on_done

    async def run(self, *_args: object) -> Any:
        raise AssertionError("nothing waits for this thread")

    async def stop(self) -> None:
        """Nothing runs."""


def driver_of(
    bench: Bench,
    thread: NoThread,
    sent: list[tuple[int, Message]] | None = None,
    *,
    send: Callable[[int, bytes], object] | None = None,
    serves: Callable[[], bool] = lambda: True,
    laps: StepLaps | None = None,
) -> Driver:
    """A driver of the bench's core; what it sends goes to `send`, otherwise as messages to `sent`."""
    kept = [] if sent is None else sent
    writer: Any = type("Writer", (), {"write": None})
    return Driver(
        core=bench.core,
        clock=bench.clock,
        writer=writer,
        thread=thread,
        observer=SilentObserver(),
        laps=laps or no_laps(),
        handlers=DriverHandlers(
            send=send or (lambda node_id, payload: kept.append((node_id, decode_message(payload)))),
            after_step=lambda: None,
            timer=lambda _now: None,
            role_changed=lambda _now: None,
            serves=serves,
            fatal=lambda _error: None,
        ),
    )


def elect(bench: Bench, now: float) -> None:
    """Make the bench's node leader of the next term, with the vote of node 1 (or of nobody when it is alone)."""
    bench.engine.set_election_deadline(0.0)
    bench.engine._SyncObj__connectedNodes.update(bench.engine.otherNodes)
    bench.engine.doTick(0)
    from metasrv.raft.core.messages import VoteGranted

    for node_id in bench.engine.membership().voters:
        if node_id != bench.engine.own_id() and bench.engine.role() == 1:
            bench.guards.incoming(node_id, VoteGranted(bench.engine.term()), now)
    bench.take()
