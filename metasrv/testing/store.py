"""The few operations that load generators use, over either client, with outcomes kept apart.

Every method ends in one of three ways: it returns (done), it raises NotDoneError (certainly not done), or it raises
UnknownOutcomeError. Runs on an event loop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from time import monotonic
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from metasrv.client import AsyncClient, Transaction
from metasrv.client.answers import item_of, transaction_reply_of
from metasrv.client.connection import CallFailedError, Connection, Credentials
from metasrv.model.commands import (
    DeleteResponse,
    FetchIncreaseResponse,
    GetResponse,
    OperationResponse,
    PutResponse,
    TransactionReply,
)
from metasrv.model.errors import InvalidRequestError, NotDoneError
from metasrv.model.types import Endpoint, SeqV
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.models import Guarded, Step

TIMEOUT_SECONDS_DEFAULT = 5.0


class Written(NamedTuple):
    """An acknowledged write: its place in the order of all writes, and the time its client waited."""

    key: str
    seq: int
    called_at: float
    returned_at: float


class Store(Protocol):
    """A key-value store as a load generator sees it; an absent value is None."""

    written: list[Written]
    """Every acknowledged write so far, if the store tells sequence numbers."""

    async def read(self, key: str) -> str | None: ...

    async def read_many(self, keys: Sequence[str]) -> tuple[str | None, ...]:
        """Values of several keys at one instant."""
        ...

    async def write(self, key: str, value: str, ttl_ms: int | None = None) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def compare_and_set(self, key: str, old: str | None, new: str) -> bool:
        """Write `new` if the value is `old`; whether it was done."""
        ...

    async def add(self, key: str, delta: int) -> int:
        """Add to a counter; its value afterwards."""
        ...

    async def append(self, prefix: str, value: str) -> str:
        """Store under the next key of a sequence; returns the key. Doing it twice stores two records."""
        ...

    async def transact(self, guarded: Guarded) -> tuple[bool, tuple[str | None, ...]]:
        """Whether the conditions held, and for each step the value before it."""
        ...


class _TransactionStore:
    """The operations as transactions; a subclass says how to send one."""

    def __init__(self) -> None:
        self.written: list[Written] = []

    async def _send(self, transaction: Transaction) -> TransactionReply:
        raise TypeError(f"{type(self).__name__} does not say how it sends a transaction")

    async def _execute(self, transaction: Transaction) -> TransactionReply:
        called_at = monotonic()
        reply = await self._send(transaction)
        returned_at = monotonic()
        for response in reply.responses:
            if isinstance(response, PutResponse) and response.current is not None:
                self.written.append(Written(response.key, response.current.seq, called_at, returned_at))
            elif isinstance(response, FetchIncreaseResponse):
                self.written.append(Written(response.key, response.after_seq, called_at, returned_at))
        return reply

    async def write(self, key: str, value: str, ttl_ms: int | None = None) -> None:
        await self._execute(Transaction().put(key, value.encode(), ttl_ms=ttl_ms))

    async def delete(self, key: str) -> None:
        await self._execute(Transaction().delete(key))

    async def compare_and_set(self, key: str, old: str | None, new: str) -> bool:
        transaction = Transaction()
        _expect(transaction, key, old)
        return (await self._execute(transaction.put(key, new.encode()))).success

    async def add(self, key: str, delta: int) -> int:
        [response] = (await self._execute(Transaction().fetch_increase(key, delta))).responses
        if not isinstance(response, FetchIncreaseResponse):
            raise TypeError(f"a counter answered {response}")
        return response.after

    async def append(self, prefix: str, value: str) -> str:
        # the counter stands outside the prefix, so that listing the prefix gives the records alone
        transaction = Transaction().put_sequential(prefix, f"sequence-of/{prefix}", value.encode())
        [response] = (await self._execute(transaction)).responses
        if not isinstance(response, PutResponse):
            raise TypeError(f"an append answered {response}")
        return response.key

    async def transact(self, guarded: Guarded) -> tuple[bool, tuple[str | None, ...]]:
        transaction = Transaction()
        for key, expected in guarded.conditions:
            _expect(transaction, key, expected)
        for step in guarded.then:
            _add_step(transaction, step)
        transaction.otherwise()
        for step in guarded.otherwise:
            _add_step(transaction, step)
        reply = await self._execute(transaction)
        return reply.success, tuple(_before(response) for response in reply.responses)


class ClientStore(_TransactionStore):
    """Follows the leader, as applications do."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def read(self, key: str) -> str | None:
        return _text(await self._client.get(key))

    async def read_many(self, keys: Sequence[str]) -> tuple[str | None, ...]:
        return tuple(map(_text, await self._client.get_many(keys)))

    async def _send(self, transaction: Transaction) -> TransactionReply:
        return await self._client.transaction(transaction)


class PinnedStore(_TransactionStore):
    """Asks one node only, whether it leads or not, and tries nothing twice. An async context manager."""

    STALE: Final = ((m.READ_METADATA_KEY, m.STALE_READ),)
    read_metadata: tuple[tuple[str, str], ...] = ()
    """STALE in a subclass: reads are then answered from what the node has, and are not linearizable."""

    def __init__(self, endpoint: Endpoint, timeout_s: float = TIMEOUT_SECONDS_DEFAULT, password: str = "") -> None:
        super().__init__()
        self._connection = Connection(str(endpoint), Credentials(password=password))
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def read(self, key: str) -> str | None:
        return (await self.read_many([key]))[0]

    async def read_many(self, keys: Sequence[str]) -> tuple[str | None, ...]:
        request = pb.RaftRequest(data=json.dumps({"MGetKV": {"keys": list(keys)}}))
        values = []
        try:
            stream = self._connection.stream(m.KV_READ_V1, request, self._timeout_s, self.read_metadata)
            async with aclosing(stream) as answers:
                async for answer in answers:
                    values.append(_text(item_of(answer.message)[1]))
        except CallFailedError as error:
            raise _plain(error) from error
        if len(values) != len(keys):
            raise NotDoneError(f"{len(values)} of {len(keys)} keys were answered")
        return tuple(values)

    async def _send(self, transaction: Transaction) -> TransactionReply:
        try:
            answer = await self._connection.unary(m.TRANSACTION, transaction.request, self._timeout_s)
        except CallFailedError as error:
            raise _plain(error) from error
        return transaction_reply_of(answer.message)


def _plain(error: CallFailedError) -> Exception:
    """The outcome that a failure means; "invalid" is a defect, as a load generator sends nothing invalid."""
    meaning = error.outcome.error
    if isinstance(meaning, InvalidRequestError):
        return AssertionError(f"a correct request was called invalid: {meaning}")
    return meaning


def _expect(transaction: Transaction, key: str, value: str | None) -> None:
    if value is None:
        transaction.when_absent(key)
    else:
        transaction.when_value(key, "==", value.encode())


def _add_step(transaction: Transaction, step: Step) -> None:
    if step.name == "get":
        transaction.get(step.key)
    elif step.name == "put" and step.value is not None:
        transaction.put(step.key, step.value.encode())
    elif step.name == "delete":
        transaction.delete(step.key)
    else:
        raise ValueError(f"there is no such step: {step}")


def _before(response: OperationResponse) -> str | None:
    if isinstance(response, GetResponse):
        return _text(response.value)
    if isinstance(response, PutResponse | DeleteResponse):
        return _text(response.prev)
    raise TypeError(f"a step answered {response}")


def _text(record: SeqV | None) -> str | None:
    return None if record is None else record.data.decode()
