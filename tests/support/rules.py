"""The language of the rule tables: docs/contract/grpc.md section d as data.

A rule is a sequence of steps on keys of its own: commands with their replies, reads with what they find, pauses, and
watches with the events they hear until the rule ends. What is known only once a rule runs has a name: `At(3)` is the
third sequence number that the rule takes, `Stamped(3)` the log time of the write that took it. `rule_players.py` runs
rules, on the state machine itself or over the wire.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.watch import WatchFilter

U64_MAX = 2**64 - 1
FAR_MS = 4_000_000_000_000
FAR_SECONDS = 4_000_000_000
PAST_MS = 1_000_000_000_000
PAST_SECONDS = 1_000_000_000
ANY = c.MatchSeq(c.MatchKind.ANY)

# ----------------------------------------------------------------------------- what is known once a rule runs


class At(int):
    """A sequence number: that many after the last one that was taken before the rule."""

    def __repr__(self) -> str:
        return f"At({int(self)})"


class FromNow(int):
    """Milliseconds since the epoch: that many after the present of the step. Only where the test moves the clock."""

    def __repr__(self) -> str:
        return f"FromNow({int(self)})"


class Stamped(int):
    """Milliseconds since the epoch: the log time of the write with this number, and `plus_ms` more."""

    plus_ms: int

    def __new__(cls, number: int, plus_ms: int = 0) -> Self:
        made = super().__new__(cls, number)
        made.plus_ms = plus_ms
        return made

    def __repr__(self) -> str:
        return f"Stamped({int(self)}, {self.plus_ms})"


# ----------------------------------------------------------------------------- steps


class Does(NamedTuple):
    """A command, and its reply."""

    command: c.Command
    reply: c.Reply


class Waits(NamedTuple):
    """Time passes; where the test moves the clock it may also go back."""

    milliseconds: int


class Lists(NamedTuple):
    """A list of all keys with this prefix, by every method that lists."""

    prefix: str
    records: tuple[tuple[str, SeqV], ...]
    limit: int | None = None


class Gets(NamedTuple):
    """A read of these keys, by every method that reads several or one."""

    keys: tuple[str, ...]
    records: tuple[SeqV | None, ...]


class Holds(NamedTuple):
    """The keys that are stored, expired or not."""

    keys: tuple[str, ...]


class Event(NamedTuple):
    """A message of a watch. `flushed`: it says what was there at the beginning."""

    key: str
    prev: SeqV | None
    current: SeqV | None
    flushed: bool = False


FLUSH_END = Event("", None, None)


class Watches(NamedTuple):
    """A watch that begins with this step; `events` is everything that it hears until the rule ends."""

    key: str
    key_end: str | None
    events: tuple[Event, ...]
    filter: WatchFilter = WatchFilter.ALL
    flush: bool = False


Step = Does | Waits | Lists | Gets | Holds | Watches


class Rule(NamedTuple):
    """A row: `takes` is how many sequence numbers its steps take together.

    `exact`: it holds to the millisecond, and runs only where the test moves the clock.
    """

    name: str
    steps: tuple[Step, ...]
    takes: int | None = None
    exact: bool = False


# ----------------------------------------------------------------------------- shorthands


def record(number: int, data: bytes = b"v", expire_at: int | None = None, ttl_ms: int | None = None) -> SeqV:
    """What the rule's write with this number stored."""
    if ttl_ms is not None:
        expire_at = Stamped(number, ttl_ms)
    return SeqV(At(number), data, KVMeta(expire_at, Stamped(number)))


def runs(*operations: tuple[c.TransactionOperation, c.OperationResponse]) -> Does:
    """A transaction without conditions: each operation with its response."""
    asked = tuple(operation for operation, _ in operations)
    return Does(
        c.Transaction((), (), asked, ()), c.TransactionReply(True, tuple(response for _, response in operations), "then")
    )


def puts(key: str, number: int, data: bytes = b"v", prev: SeqV | None = None) -> tuple[c.Put, c.PutResponse]:
    """A put that takes this number, for `runs`."""
    return c.Put(key, data), c.PutResponse(key, prev, record(number, data))


def upserts(
    key: str,
    reply: tuple[SeqV | None, SeqV | None],
    operation: c.Operation = c.Operation.UPDATE,
    match: c.MatchSeq = ANY,
    value: bytes = b"v",
    expire_at: int | None = None,
    ttl_ms: int | None = None,
) -> Does:
    data = value if operation is c.Operation.UPDATE else b""
    return Does(c.Upsert(key, match, operation, data, expire_at, ttl_ms), c.UpsertReply(*reply))


def seq_is(key: str, number: int, comparison: c.Comparison = c.Comparison.EQ) -> c.Condition:
    return c.Condition(key, c.Target.SEQ, number, comparison)


def all_of(*conditions: c.Condition, trees: tuple[c.Expression, ...] = ()) -> c.Expression:
    return c.Expression(c.Combine.AND, trees, conditions)


def any_of(*conditions: c.Condition, trees: tuple[c.Expression, ...] = ()) -> c.Expression:
    return c.Expression(c.Combine.OR, trees, conditions)
