"""Client library of the meta service: `AsyncClient` on asyncio, the blocking `Client`, and recipes on their sessions.

What begins with `Async` belongs to an `AsyncClient`, its namesake without that to a `Client`. docs/clients.md is the
guide, `examples/` has whole programs. Loads nothing of the server.
"""

from metasrv.client.answers import ClientInfo, WatchEvent
from metasrv.client.asynchronous import AsyncClient
from metasrv.client.blocking import Client
from metasrv.client.blocking_sessions import Session
from metasrv.client.caller import CallObserver
from metasrv.client.following import EventKind, PrefixEvent
from metasrv.client.loss import SessionLostError
from metasrv.client.outcomes import ClientClosedError, OtherClusterError
from metasrv.client.recipes.barrier import AsyncBarrier, AsyncDoubleBarrier
from metasrv.client.recipes.blocking import Barrier, Counter, DoubleBarrier, Election, Lock, Queue, QueueItem
from metasrv.client.recipes.counter import AsyncCounter, Count
from metasrv.client.recipes.election import AsyncElection, Leader
from metasrv.client.recipes.lock import AsyncLock
from metasrv.client.recipes.queue import AsyncQueue, AsyncQueueItem
from metasrv.client.recipes.waiting import FencedError
from metasrv.client.sessions import AsyncSession, Executed
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model.commands import MatchKind, MatchSeq
from metasrv.model.errors import (
    InvalidRequestError,
    NotDoneError,
    RequestError,
    UnknownOutcomeError,
    WriteRefusedError,
)
from metasrv.model.types import SeqV

__all__ = [
    "AsyncBarrier",
    "AsyncClient",
    "AsyncCounter",
    "AsyncDoubleBarrier",
    "AsyncElection",
    "AsyncLock",
    "AsyncQueue",
    "AsyncQueueItem",
    "AsyncSession",
    "Barrier",
    "CallObserver",
    "Client",
    "ClientClosedError",
    "ClientInfo",
    "Count",
    "Counter",
    "DoubleBarrier",
    "Election",
    "EventKind",
    "Executed",
    "FencedError",
    "FencingToken",
    "InvalidRequestError",
    "Leader",
    "Lock",
    "MatchKind",
    "MatchSeq",
    "NotDoneError",
    "OtherClusterError",
    "PrefixEvent",
    "Queue",
    "QueueItem",
    "RequestError",
    "SeqV",
    "Session",
    "SessionLostError",
    "Transaction",
    "UnknownOutcomeError",
    "WatchEvent",
    "WriteRefusedError",
]
