"""What watch streams told, and checks of it: order, gaps, duplicates, and agreement between nodes.

Every write takes the next sequence number, so a stream over all keys must show each number once, in order. A delete takes
none; it is recognized by the record that it ends. Values only; knows neither clients nor nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from metasrv.testing.store import Written

PROBLEMS_PER_STREAM_MAX = 5
Records = Mapping[str, tuple[int, bytes]]
"""Sequence number and value of every record, by key."""


class Change(NamedTuple):
    """One event: `seq` is None for a delete, `prev_seq` for a record that was not there before."""

    key: str
    prev_seq: int | None
    seq: int | None
    data: bytes

    def __str__(self) -> str:
        return f"{self.key!r} from {self.prev_seq or 'absent'} to {self.seq or 'absent'}"


@dataclass(slots=True)
class WatchedStream:
    """One stream over all keys, from its flush to its end."""

    node_id: int
    existing_records: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    flushed: bool = False
    """Whether the marker after the existing records has come."""
    changes: list[Change] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was wrong with the order of the messages."""
    end: str | None = None
    """Why it ended; None while it is open."""
    is_recorded: bool = False
    _keys: set[str] = field(default_factory=set)
    _last_existing: str | None = None

    @property
    def is_open(self) -> bool:
        return self.end is None

    def knows(self, key: str) -> bool:
        """Whether it told of `key` at all."""
        return key in self._keys

    def existing(self, key: str, seq: int | None, data: bytes) -> None:
        if seq is None:
            self.faults.append(f"an existing record {key!r} without a value")
            return
        if self.flushed:
            self.faults.append(f"the existing record {key!r} came after the marker")
        if self._last_existing is not None and key <= self._last_existing:
            self.faults.append(f"the existing record {key!r} came out of order or twice")
        self._last_existing = key
        self.existing_records[key] = (seq, data)
        self._keys.add(key)

    def marker(self) -> None:
        if self.flushed:
            self.faults.append("a second marker came")
        self.flushed = True

    def changed(self, change: Change) -> None:
        if not self.flushed:
            self.faults.append(f"the change of {change} came before the marker")
        self.changes.append(change)
        self._keys.add(change.key)


def replay(stream: WatchedStream) -> tuple[dict[str, tuple[int, bytes]], list[str]]:
    """The records at the end of the stream, and its contradictions on the way."""
    records = dict(stream.existing_records)
    problems = list(stream.faults)
    last_seq = max((seq for seq, _ in records.values()), default=None)
    follows = False
    for change in stream.changes:
        known = records.get(change.key)
        if (None if known is None else known[0]) != change.prev_seq:
            problems.append(f"{change}, but the stream had left it at {known[0] if known else 'absent'}")
        if change.seq is None:
            records.pop(change.key, None)
            continue
        if last_seq is not None and change.seq <= last_seq:
            problems.append(f"{change} came after sequence number {last_seq}: a duplicate, or out of order")
        elif follows and last_seq is not None and change.seq != last_seq + 1:
            problems.append(f"{change} follows sequence number {last_seq}: a gap")
        last_seq, follows = change.seq, True
        records[change.key] = (change.seq, change.data)
    return records, [f"watch on node {stream.node_id}: {problem}" for problem in problems[:PROBLEMS_PER_STREAM_MAX]]


def disagreements(streams: Iterable[WatchedStream]) -> list[str]:
    """Changes that two streams tell in different orders, or that one of them leaves out."""
    following: dict[Change, tuple[Change, int]] = {}
    problems = []
    for stream in streams:
        for earlier, later in zip(stream.changes, stream.changes[1:], strict=False):
            known = following.setdefault(earlier, (later, stream.node_id))
            if known[0] != later:
                problems.append(f"after {earlier} node {known[1]} told of {known[0]}, node {stream.node_id} of {later}")
                break  # everything after it would differ too
    return problems


def wrong_watches(
    streams: Sequence[WatchedStream], final: Records, written: Iterable[Written], complete: Iterable[int]
) -> list[str]:
    """Everything that is wrong with the streams of a run.

    `final` is the state at the end, `complete` the nodes whose latest stream must have led to it.
    """
    problems = []
    latest = {stream.node_id: stream for stream in streams}
    awaited = set(complete)
    for stream in streams:
        records, wrong = replay(stream)
        problems += wrong
        if stream.node_id in awaited and latest[stream.node_id] is stream and records != final:
            differing = sorted(key for key in {*records, *final} if records.get(key) != final.get(key))
            problems.append(f"watch on node {stream.node_id} leads to another state than the nodes hold: {differing[:5]}")
    problems += disagreements(streams)
    told = {change.seq: change for stream in streams for change in stream.changes if change.seq is not None}
    for one in written:
        change = told.get(one.seq)
        if change is not None and change.key != one.key:
            problems.append(f"write {one.seq} was acknowledged for {one.key!r}, the watches tell of {change}")
    return problems
