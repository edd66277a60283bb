"""What recipes wait for, and the records that say in which session something is held.

Runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from metasrv.client.following import end_of_prefix, wait_until
from metasrv.client.interface import KeyValueClient
from metasrv.client.outcomes import ClientClosedError, OtherClusterError
from metasrv.client.sessions import AsyncSession, Executed
from metasrv.client.transaction import FencingToken, Transaction
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError, RequestError
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb

PAUSE_SECONDS = 0.1
Result = TypeVar("Result")


class FencedError(RequestError):
    """The token is no longer valid: what it stood for has ended or is another's. Nothing was written."""


class Held(NamedTuple):
    """A record that somebody holds in a session."""

    token: FencingToken
    session_key: str
    value: bytes


def unique_key(prefix: str) -> str:
    """A key that nobody else makes, directly under the prefix."""
    return prefix + uuid4().hex


def held_value(session: AsyncSession, value: bytes = b"") -> bytes:
    """The bytes of such a record: the session's key, a line break, the caller's value."""
    return session.key.encode() + b"\n" + value


def held_of(key: str, record: SeqV) -> Held | None:
    """The record, or None for one that no recipe wrote."""
    session_key, separator, value = record.data.partition(b"\n")
    if not separator:
        return None
    return Held(FencingToken(key, record.seq), session_key.decode(errors="replace"), value)


def directly_under(prefix: str, items: Iterable[tuple[str, SeqV]]) -> list[Held]:
    """Held records right under the prefix, the earliest first; names that go on with a slash are others'."""
    found = [held_of(key, record) for key, record in items if "/" not in key[len(prefix) :]]
    return sorted((held for held in found if held is not None), key=lambda held: held.token.seq)


async def living(client: KeyValueClient, session_keys: Iterable[str]) -> set[str]:
    """Those of the sessions that live."""
    keys = sorted(set(session_keys))
    records = await client.get_many(keys) if keys else []
    return {key for key, record in zip(keys, records, strict=True) if record is not None}


def removal_of_dead(held: Held) -> Transaction:
    """Delete a record whose session is over; safe to send at any time and again."""
    return Transaction().when_absent(held.session_key).delete(held.token.key, match_seq=held.token.seq)


def seq_of_put(executed: Executed) -> int | None:
    """The number that the first operation, a put, got; None when the answer was lost."""
    response = executed.responses[0] if executed.responses else None
    if isinstance(response, c.PutResponse) and response.current is not None:
        return response.current.seq
    return None


# ----------------------------------------------------------------------------- waiting


async def patiently(session: AsyncSession, read: Callable[[], Awaitable[Result]]) -> Result:
    """The result of a read, however long no node answers it while the session lives."""
    while True:
        session.lost.check()
        try:
            return await read()
        except (ClientClosedError, OtherClusterError):
            raise
        except NotDoneError:
            await asyncio.sleep(PAUSE_SECONDS)


async def first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Wait for whichever ends first; the others are cancelled."""
    tasks = [asyncio.create_task(each, name="recipe-wait") for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_gone(client: KeyValueClient, token: FencingToken) -> None:
    """Until the key is absent, or has another record."""

    def gone(records: Mapping[str, SeqV]) -> bool:
        record = records.get(token.key)
        return record is None or record.seq != token.seq

    await wait_until(client, token.key, None, gone)


async def until_absent(client: KeyValueClient, key: str) -> None:
    """Until the key is deleted or has expired; that it is written again does not wake anybody."""
    await wait_until(client, key, None, lambda records: key not in records, filter_type=pb.WatchRequest.DELETE)


async def until_changed(client: KeyValueClient, prefix: str, seen: Mapping[str, int]) -> None:
    """Until the keys under the prefix, or their sequence numbers, are not the `seen` ones."""

    def changed(records: Mapping[str, SeqV]) -> bool:
        return {key: record.seq for key, record in records.items()} != seen

    await wait_until(client, prefix, end_of_prefix(prefix), changed)


def seqs_of(items: Iterable[tuple[str, SeqV]]) -> dict[str, int]:
    """What `until_changed` compares with."""
    return {key: record.seq for key, record in items}


def seconds_of(timeout_ms: int | None) -> float | None:
    return None if timeout_ms is None else timeout_ms / 1000
