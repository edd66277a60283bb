"""The few operations that load generators use, over either client, with outcomes kept apart.

Every method ends in one of three ways: it returns (done), it raises NotDoneError (certainly not done), or it raises
UnknownOutcomeError. Runs on an event loop.
"""

from __future__ import annotations

from typing import Protocol

import grpc

from metasrv.client import AsyncClient, Transaction
from metasrv.client.answers import transaction_reply_of
from metasrv.commands import FetchIncreaseResponse, PutResponse, TransactionReply
from metasrv.errors import NotDoneError, UnknownOutcomeError
from metasrv.testing.node_client import NodeClient


class Store(Protocol):
    """A key-value store as a load generator sees it; an absent value is None."""

    async def read(self, key: str) -> str | None: ...

    async def write(self, key: str, value: str) -> None: ...

    async def compare_and_set(self, key: str, old: str | None, new: str) -> bool:
        """Write `new` if the value is `old`; whether it was done."""
        ...

    async def add(self, key: str, delta: int) -> int:
        """Add to a counter; its value afterwards."""
        ...

    async def append(self, prefix: str, value: str) -> str:
        """Store under the next key of a sequence; returns the key. Executed twice, it would store two records."""
        ...


class _TransactionStore:
    """The operations as transactions; how one is sent is the subclass's."""

    async def _send(self, transaction: Transaction) -> TransactionReply:
        raise TypeError(f"{type(self).__name__} does not say how it sends a transaction")

    async def write(self, key: str, value: str) -> None:
        await self._send(Transaction().put(key, value.encode()))

    async def compare_and_set(self, key: str, old: str | None, new: str) -> bool:
        transaction = Transaction()
        if old is None:
            transaction.when_absent(key)
        else:
            transaction.when_value(key, "==", old.encode())
        return (await self._send(transaction.put(key, new.encode()))).success

    async def add(self, key: str, delta: int) -> int:
        [response] = (await self._send(Transaction().fetch_increase(key, delta))).responses
        if not isinstance(response, FetchIncreaseResponse):
            raise TypeError(f"a counter answered {response}")
        return response.after

    async def append(self, prefix: str, value: str) -> str:
        # the counter stands outside the prefix, so that listing the prefix gives the records alone
        transaction = Transaction().put_sequential(prefix, f"sequence-of/{prefix}", value.encode())
        [response] = (await self._send(transaction)).responses
        if not isinstance(response, PutResponse):
            raise TypeError(f"an append answered {response}")
        return response.key


class ClientStore(_TransactionStore):
    """Follows the leader, as applications do."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def read(self, key: str) -> str | None:
        record = await self._client.get(key)
        return None if record is None else record.data.decode()

    async def _send(self, transaction: Transaction) -> TransactionReply:
        return await self._client.transaction(transaction)


class PinnedStore(_TransactionStore):
    """Asks one node only, whatever it is. A write that fails for any reason counts as unknown."""

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    async def read(self, key: str) -> str | None:
        try:
            value = await self._client.get(key)
        except grpc.aio.AioRpcError as error:
            raise NotDoneError(f"{self._client.endpoint}: {error.details()}") from error
        return None if value is None else value.decode()

    async def _send(self, transaction: Transaction) -> TransactionReply:
        try:
            return transaction_reply_of(await self._client.transaction(transaction.request))
        except grpc.aio.AioRpcError as error:
            raise UnknownOutcomeError(f"{self._client.endpoint}: {error.details()}") from error
