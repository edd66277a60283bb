"""Runs the rules of the tables: on the state machine itself, or over the wire of a node."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from metasrv.client import answers
from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.testing.hand_clock import HandClock
from tests.support.grpc_commands import records_of, send
from tests.support.grpc_wire import Wire
from tests.support.rules import (
    FLUSH_END,
    At,
    Does,
    Event,
    FromNow,
    Gets,
    Holds,
    Lists,
    Rule,
    Stamped,
    Waits,
    Watches,
)
from tests.support.state_bench import Bench, everything_of

LAST = b"the rule is over"
"""The value of the writes that tell the watches of a rule, over the wire, that nothing more comes."""
CLOCK_ERROR_MS = 1_000
KEY_FIELDS = frozenset({"key", "key_end", "prefix", "sequence_key"})


class Target(Protocol):
    """Where rules run."""

    clock: HandClock | None
    """Moved by the rules; None where time is real."""

    def last_number(self) -> int:
        """The last sequence number that was taken."""
        ...

    def apply(self, command: c.Command) -> c.Reply: ...

    def lists(self, prefix: str, limit: int | None) -> list[list[tuple[str, SeqV]]]:
        """One list for each way to ask."""
        ...

    def gets(self, keys: tuple[str, ...]) -> list[list[SeqV | None]]:
        """One list for each way to ask."""
        ...

    def held(self, prefix: str) -> list[str]: ...

    def watch(self, watches: Watches) -> Callable[[], list[Event]]:
        """Begin a watch; what it returns gives, at the end, everything that was heard."""
        ...


class Player:
    """One rule on one target, with keys that begin with `prefix`."""

    def __init__(self, target: Target, prefix: str) -> None:
        self._target = target
        self._prefix = prefix
        self._base = target.last_number()
        self._times_ms: dict[int, int] = {}
        """Log times of the rule's writes, by their number, as far as replies and reads have told them."""
        self._began_ms = self._now_ms()
        self._log_times_ms = {self._began_ms}
        """Where the test moves the clock: the log time of each command."""

    def play(self, rule: Rule) -> int:
        """Run the steps in order; how many there were. Raises AssertionError where one does not hold."""
        watching: list[tuple[Watches, Callable[[], list[Event]]]] = []
        for step in rule.steps:
            if isinstance(step, Watches):
                watching.append((step, self._target.watch(self._known(step._replace(events=())))))
            else:
                self._step(step)
        if rule.takes is not None:
            assert self._target.last_number() - self._base == rule.takes, "sequence numbers that the rule takes"
        for watches, heard in watching:
            self._compare(watches.events, tuple(heard()))
        return len(rule.steps)

    def _step(self, step: Any) -> None:
        if isinstance(step, Does):
            self._does(step)
        elif isinstance(step, Waits):
            self._wait(step.milliseconds)
        elif isinstance(step, Lists):
            expected = tuple((self._prefix + key, record) for key, record in step.records)
            for found in self._target.lists(self._prefix + step.prefix, step.limit):
                self._compare(expected, tuple(found))
        elif isinstance(step, Gets):
            for records in self._target.gets(tuple(self._prefix + key for key in step.keys)):
                self._compare(step.records, tuple(records))
        else:
            assert isinstance(step, Holds)
            assert self._target.held(self._prefix) == [self._prefix + key for key in step.keys]

    def _does(self, step: Does) -> None:
        time_ms = max(self._now_ms(), *self._log_times_ms)
        self._log_times_ms.add(time_ms)
        learned = self._compare(step.reply, self._target.apply(self._known(step.command)))
        assert len(learned) <= 1, "time is one for a command"
        assert self._target.clock is None or learned <= {time_ms}

    def _compare(self, expected: Any, actual: Any) -> set[int]:
        """Assert that they are equal; the log times that `actual` was the first to tell."""
        known = len(self._times_ms)
        self._learn(expected, actual)
        assert actual == self._known(expected)
        times_ms = [time_ms for _, time_ms in sorted(self._times_ms.items())]
        assert times_ms == sorted(times_ms), "log time never goes back"
        learned = set(list(self._times_ms.values())[known:])
        if self._target.clock is not None:
            assert learned <= self._log_times_ms
        else:
            earliest_ms, latest_ms = self._began_ms - CLOCK_ERROR_MS, self._now_ms() + CLOCK_ERROR_MS
            assert all(earliest_ms <= time_ms <= latest_ms for time_ms in learned)
        return learned

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000 if self._target.clock is None else self._target.clock.wall_ms()

    def _wait(self, milliseconds: int) -> None:
        if self._target.clock is None:
            time.sleep(milliseconds / 1000)
        else:
            self._target.clock.advance(milliseconds / 1000)

    def _learn(self, expected: Any, actual: Any) -> None:
        """Take the log times that the reply tells and nothing has told before."""
        if isinstance(expected, Stamped):
            if isinstance(actual, int):
                self._times_ms.setdefault(int(expected), actual - expected.plus_ms)
        elif isinstance(expected, tuple) and isinstance(actual, tuple):
            for one, other in zip(expected, actual, strict=False):
                self._learn(one, other)

    def _known(self, value: Any) -> Any:
        """The value with every name of `rules.py` replaced by what it stands for, and the rule's prefix before keys."""
        if isinstance(value, At):
            return self._base + int(value)
        if isinstance(value, FromNow):
            return self._now_ms() + int(value)
        if isinstance(value, Stamped):
            time_ms = self._times_ms.get(int(value))
            return value if time_ms is None else time_ms + value.plus_ms
        if not isinstance(value, tuple):
            return value
        if not hasattr(value, "_fields"):
            return tuple(map(self._known, value))
        if value is FLUSH_END:
            return value
        known = {
            name: self._prefix + part if name in KEY_FIELDS and isinstance(part, str) else self._known(part)
            for name, part in zip(value._fields, value, strict=True)
        }
        return type(value)(**known)


# ----------------------------------------------------------------------------- the state machine itself


class MachineTarget:
    """A state machine without a node around it. Before it is read it applies a tick when one is due, as a leader does."""

    def __init__(self, bench: Bench, clock: HandClock) -> None:
        self.clock: HandClock | None = clock
        self._bench = bench
        self._wall_ms = clock.wall_ms

    def last_number(self) -> int:
        return self._bench.machine.last_seq

    def apply(self, command: c.Command) -> c.Reply:
        (reply,) = self._bench.apply(command, at_ms=self._wall_ms())
        return reply

    def _tick_if_due(self) -> None:
        if self._bench.machine.expires_before(self._wall_ms()):
            self.apply(c.TICK)

    def lists(self, prefix: str, limit: int | None) -> list[list[tuple[str, SeqV]]]:
        self._tick_if_due()
        machine, now_ms = self._bench.machine, 0
        paged: list[tuple[str, SeqV]] = []
        while page := machine.list_range(prefix, None, paged[-1][0] if paged else None, 2, now_ms):
            paged += page
        matching = [(key, record) for key, record in paged if key.startswith(prefix)]
        return [machine.list_prefix(prefix, limit, now_ms), matching[:limit]]

    def gets(self, keys: tuple[str, ...]) -> list[list[SeqV | None]]:
        self._tick_if_due()
        machine, now_ms = self._bench.machine, 0
        return [machine.get_many(list(keys), now_ms), [machine.get(key, now_ms) for key in keys]]

    def held(self, prefix: str) -> list[str]:
        self._tick_if_due()
        reader = self._bench.machine.open_reader()
        records = dict(reader.records())
        reader.close()
        expiring = sum(record.meta is not None and record.meta.expire_at is not None for record in records.values())
        assert (self._bench.machine.key_count, self._bench.machine.expire_count) == (len(records), expiring)
        return [key for key in records if key.startswith(prefix)]

    def watch(self, watches: Watches) -> Callable[[], list[Event]]:
        watcher = self._bench.machine.watches.subscribe(watches.key, watches.key_end, watches.filter, watches.flush)
        return lambda: [
            Event(item.key, item.prev, item.current, item.is_initialization)
            for item in asyncio.run(everything_of(watcher))
        ]


# ----------------------------------------------------------------------------- over the wire


class WireTarget:
    """A node's gRPC port; a foreign client's messages on both sides. `clock` is the node's, where the test moves it."""

    def __init__(self, wire: Wire, clock: HandClock | None = None) -> None:
        self.clock = clock
        self._wire = wire
        self._probes = 0
        self._cleanup = contextlib.ExitStack()

    def close(self) -> None:
        """End the watches."""
        self._cleanup.close()

    def last_number(self) -> int:
        """Asking takes one, which is not counted."""
        self._probes += 1
        return self._wire.seq() - (self._probes - 1)

    def apply(self, command: c.Command) -> c.Reply:
        return send(self._wire, command)

    def lists(self, prefix: str, limit: int | None) -> list[list[tuple[str, SeqV]]]:
        by_kv_list = [(item.key, answers.record_of(item.value)) for item in self._wire.kv_list(prefix, limit)]
        if limit is not None:  # ListKV knows no limit
            return [by_kv_list]
        return [by_kv_list, list(records_of(self._wire, prefix).items())]

    def gets(self, keys: tuple[str, ...]) -> list[list[SeqV | None]]:
        several = [[answers.item_of(item) for item in ask(*keys)] for ask in (self._wire.mget, self._wire.kv_get_many)]
        for items in several:
            assert tuple(key for key, _ in items) == keys
        found = [[record for _, record in items] for items in several]
        if len(keys) <= GETS_MAX:
            singles = [self._wire.get(key) for key in keys]
            found.append([None if record is None else answers.record_of(record) for record in singles])
        return found

    def held(self, prefix: str) -> list[str]:
        self._wire.get(prefix)  # a node may lag, and an export shows what it has applied
        return [key for key in self._wire.stored_keys() if key.startswith(prefix)]

    def watch(self, watches: Watches) -> Callable[[], list[Event]]:
        key, key_end = watches.key, watches.key_end
        events = self._cleanup.enter_context(
            self._wire.watch(key, key_end, initial_flush=watches.flush, filter_type=int(watches.filter))
        )
        last_key = key if key_end is None else key + "\0"

        def everything() -> list[Event]:
            self._wire.put(last_key, LAST)
            self._wire.delete(last_key)
            return list(_until_last(events))

        return everything


GETS_MAX = 10
"""More keys than these are not asked for one by one."""


def _until_last(messages: Iterator[Any]) -> Iterator[Event]:
    for message in messages:
        event = answers.watch_event_of(message)
        if LAST in [record.data for record in (event.prev, event.current) if record is not None]:
            return
        yield Event(event.key, event.prev, event.current, event.is_initialization)


_prefixes = itertools.count()


def own_prefix() -> str:
    """Keys that begin with this are no other rule's."""
    return f"{next(_prefixes):06}/"
