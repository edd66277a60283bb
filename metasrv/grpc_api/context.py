"""What the client-facing service asks of the process that it runs in: the node itself, or one of its gateways.

`node/context.py` offers it with the node's own state machine and consensus, `gateway/gateway_context.py` with what the
node tells over a link. Protocols only; every method runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from metasrv.config.model import Config
from metasrv.consensus import ClientConsensus
from metasrv.metrics.registry import MetricsRegistry
from metasrv.model.types import LogId, Membership, Node, RaftStatus, SeqV, WriteLimits
from metasrv.node.slow_writes import Written
from metasrv.process.clock import Clock
from metasrv.process.reloading import Reloader
from metasrv.state.touched import Touched
from metasrv.state.watch import Take, WatchFilter, WatchItem
from metasrv.tracing.watch import RequestWatch


class OpenInstant(Protocol):
    """The records as they were at one instant."""

    on_lost: Callable[[], None]
    """Called when it is given up."""

    @property
    def lost(self) -> str:
        """Why it was given up, in words for a client."""

    def get(self, key: str, now_ms: int) -> SeqV | None:
        """The record at this instant, unless it has expired by `now_ms`; raises ViewLostError once it was given up."""


class WholeView(Protocol):
    """The whole state at one instant, for one helper thread at a time; `StateReader` is one.

    Reads raise ViewLostError once it was given up.
    """

    @property
    def last_applied(self) -> LogId: ...

    @property
    def last_seq(self) -> int: ...

    @property
    def nodes(self) -> Mapping[int, Node]: ...

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def secrets(self) -> Mapping[str, bytes]: ...

    @property
    def membership_log_id(self) -> LogId: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def cluster_id(self) -> str | None: ...

    def get(self, key: str, now_ms: int | None = None) -> SeqV | None:
        """One record, unless it has expired by `now_ms`."""

    def pages(
        self, start: str = "", end: str | None = None, now_ms: int | None = None, page_records: int = ...
    ) -> Iterator[list[tuple[str, SeqV]]]:
        """All records of [start, end) in key order, in pages bounded in count and in bytes."""

    def records(self, page_records: int = ...) -> Iterator[tuple[str, SeqV]]:
        """Every record in key order, expired or not."""

    def expire_index(self) -> Iterator[tuple[int, int, str]]:
        """(expire_ms, seq, key) of every record that carries an expiry."""

    def close(self) -> None:
        """Release the instant; safe to call again."""


class OpenViews(Protocol):
    """The views that are pinned."""

    @property
    def hurry(self) -> bool:
        """Whether reads should no longer pause between pages."""


class LocalState(Protocol):
    """The applied state; `StateMachine` has all of it."""

    @property
    def secrets(self) -> Mapping[str, bytes]:
        """Replicated secrets by name; another mapping after each change."""

    @property
    def features(self) -> tuple[str, ...]:
        """Sorted names of the features that are on."""

    @property
    def limits(self) -> WriteLimits:
        """What the cluster refuses."""

    @property
    def cluster_id(self) -> str | None:
        """None before the node has a cluster."""

    @property
    def last_applied(self) -> LogId: ...

    @property
    def touched(self) -> Touched | None:
        """Where entries are noticed as they are applied; None in a process that does not apply them."""

    @property
    def views(self) -> OpenViews: ...

    def get(self, key: str, now_ms: int) -> SeqV | None:
        """The record, unless it has expired by `now_ms`."""

    def get_many(self, keys: Iterable[str], now_ms: int) -> list[SeqV | None]:
        """One item for each key, in the order asked for."""

    def list_prefix(self, prefix: str, limit: int | None, now_ms: int) -> list[tuple[str, SeqV]]:
        """Records whose key starts with `prefix`, in key order, at most `limit`."""

    def open_reader(self) -> WholeView:
        """A view pinned to this instant, for a helper thread; the caller closes it."""

    def open_instant(self) -> AbstractContextManager[OpenInstant]:
        """The records of this instant, for some reads on the loop."""


class OpenWatch(Protocol):
    """One stream of changes."""

    async def next_batch(self, take: Take | None = None) -> list[WatchItem]:
        """Wait for at least one item; empty after `close`. Raises WatcherOverflow or WatchReset once it has ended."""

    def close(self) -> None:
        """End it; safe to call again."""


class Serving(Protocol):
    """Whether this node's copy of the state may be read."""

    @property
    def serves(self) -> bool: ...


class SlowWriteNotes(Protocol):
    """The slowest and the largest writes."""

    def note(
        self,
        ended: float,
        seconds: float,
        size_bytes: int,
        method: str,
        describe: Callable[[], Written],
        failure: str | None,
    ) -> None:
        """A write has ended, at these seconds of the clock; `describe` is called if it is kept."""


class GrpcContext(Protocol):
    """See the module."""

    @property
    def config(self) -> Config: ...

    @property
    def config_paths(self) -> tuple[str, ...]:
        """The configuration file, if there is one."""

    @property
    def reloader(self) -> Reloader:
        """What is loaded anew when its files change."""

    @property
    def consensus(self) -> ClientConsensus: ...

    @property
    def machine(self) -> LocalState: ...

    @property
    def metrics(self) -> MetricsRegistry: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def binary_version(self) -> str: ...

    @property
    def draining(self) -> bool: ...

    @property
    def copies(self) -> Serving: ...

    @property
    def damage_found(self) -> Callable[[str], None]:
        """Told when a read finds this node's copy damaged, with one sentence."""

    @property
    def watch(self) -> RequestWatch:
        """Tells which requests are slow, and makes their spans."""

    @property
    def slow_writes(self) -> SlowWriteNotes: ...

    @property
    def processes(self) -> int:
        """How many processes of this node serve clients; each takes its part of the node's limits."""

    async def fresh_status(self) -> RaftStatus:
        """The node's status now."""

    async def until_readable(self) -> None:
        """Return once `machine` shows what the node has applied, without asking any other node."""

    async def open_watch(self, key: str, key_end: str | None, kind: WatchFilter, initial_flush: bool) -> OpenWatch:
        """Watch from an instant after the call on. Raises InvalidRequestError, OverloadedError."""
