"""A workbench for tests of `metasrv.raft`: one engine with its log, and lists in place of disk, wire and state."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from metasrv.model.entries import encode_membership_entry, encode_noop_entry, encode_regular_entry
from metasrv.model.types import Endpoint, Member, Membership
from metasrv.raft.core.engine import Engine
from metasrv.raft.core.guards import Guards
from metasrv.raft.core.messages import AppendEntries, Message, SnapshotChunk
from metasrv.raft.core.reads import ReadIndex
from metasrv.raft.log.format import LogEntry
from metasrv.raft.log.store import LogStore
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


@dataclass
class Bench:
    """An engine, its guards, and what they said and applied."""

    store: LogStore
    engine: Engine
    guards: Guards
    reads: ReadIndex
    clock: HandClock
    sent: list[tuple[int, Message]] = field(default_factory=list)
    applied: list[tuple[bytes, int, int]] = field(default_factory=list)
    receiving: bool = False
    reachable: set[int] = field(default_factory=set)

    def take(self) -> list[tuple[int, Message]]:
        sent, self.sent = self.sent, []
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
) -> Bench:
    store = LogStore.open(str(directory / "raft.db"), create_entries=[FIRST_ENTRY, *(entries or [])])
    store.take_pending()
    if term:
        store.setCurrentTerm(term, None)
    clock = clock or HandClock()
    bench: Bench
    reads = ReadIndex(own_id)
    engine = Engine(
        clock=clock,
        node_id=own_id,
        store=store,
        membership=membership(*voters),
        applied_index=applied_index,
        heartbeat_seconds=0.1,
        election_timeout_seconds=(0.4, 0.6),
        send=lambda node_id, message: bench.sent.append((node_id, bench.guards.outgoing(message))),
        apply=lambda content, index, term: bench.applied.append((content, index, term)),
        snapshots=NoSnapshots(),
    )
    guards = Guards(
        node_id=own_id,
        incarnation=f"directory-{own_id}",
        engine=engine,
        store=store,
        reads=reads,
        send=lambda node_id, message: bench.sent.append((node_id, message)),
        reachable=lambda node_id: node_id in bench.reachable,
        snapshot_chunk=lambda _node_id, _chunk: None,
        snapshot_expected=lambda _term: bench.receiving,
        election_timeout_min_seconds=0.4,
    )
    bench = Bench(store, engine, guards, reads, clock, reachable=set(voters) - {own_id})
    return bench


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
