"""The cluster that records come from, read by the public protocol alone: watch, export, status, member list.

A watch and the export that it completes come from the same node over the same connection, because every node answers
both from its own state. Nothing is written there. Runs on the event loop of a program of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from metasrv.client.answers import watch_event_of
from metasrv.client.connection import CallFailedError, ClusterPin, Connection, Credentials
from metasrv.migration.changes import Pending
from metasrv.migration.spooling import write_lines
from metasrv.model.errors import MetasrvError, NotDoneError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import ProtocolVersion

OLDEST_SERVER = ProtocolVersion(1, 2, 315)
"""The first release of upstream's with ExportV1."""
_LAST_KEY = "\U0010ffff" * (KEY_SIZE_BYTES_MAX // 4)
_CALL_SECONDS = 5.0
_START_SECONDS = 15.0
_CHUNK_LINES = 1024
_ARCHIVE = ((m.EXPORT_METADATA_KEY, m.ARCHIVE_EXPORT),)
Result = TypeVar("Result")


class Position(NamedTuple):
    """Where the source stands by what a majority of its members says, and whether the node that is read is there too."""

    last_seq: int
    last_log_index: int
    is_level: bool
    has_newest: bool
    """Whether that node has the newest record; is_level asks for every entry of the log besides."""
    problem: str = ""
    """Why it cannot be told, in words for the operator."""


class Source:
    """One node of the source at a time, out of those that were named."""

    def __init__(self, addresses: Sequence[str], credentials: Credentials) -> None:
        self.addresses = tuple(addresses)
        self._credentials = credentials
        self._cluster = ClusterPin()
        self._chosen = 0
        self._connections: dict[str, Connection] = {}

    @property
    def address(self) -> str:
        """The node that is read now."""
        return self.addresses[self._chosen]

    @property
    def cluster_id(self) -> str | None:
        """The cluster that the node names; None before the first call, and of servers that name none."""
        return self._cluster.cluster_id

    def choose_next(self) -> None:
        """Read another node from now on."""
        self._chosen = (self._chosen + 1) % len(self.addresses)

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    def _connection(self, address: str) -> Connection:
        if address not in self._connections:
            self._connections[address] = Connection(
                address, self._credentials, cluster=self._cluster, oldest_server=OLDEST_SERVER
            )
        return self._connections[address]

    # ------------------------------------------------------------------------- one node

    async def status(self, address: str | None = None) -> pb.ClusterStatus:
        """What a node says of itself. Raises RequestError."""
        status: pb.ClusterStatus = await self._unary(address or self.address, m.GET_CLUSTER_STATUS, pb.Empty())
        return status

    async def export(self, path: str) -> None:
        """Write the lines of an export of the present node to a file. Raises RequestError, BackupError.

        A metasrv node is asked for an archive, which it makes once a quorum has confirmed that it has everything; other
        servers ignore that.
        """
        request = pb.ExportRequest(chunk_size=_CHUNK_LINES)
        stream = self._connection(self.address).stream(m.EXPORT_V1, request, None, _ARCHIVE, start_seconds=_START_SECONDS)
        try:
            async with aclosing(stream) as answers:
                await write_lines((answer.message.data async for answer in answers), path)
        except CallFailedError as error:
            raise error.outcome.error from error

    @asynccontextmanager
    async def watching(self, pending: Pending) -> AsyncIterator[asyncio.Task[None]]:
        """Let `pending` hear of every change from now on. The task ends with the watch. Raises RequestError."""
        started = asyncio.Event()
        task = asyncio.create_task(self._watch(pending, started), name="migration-watch")
        waiting = asyncio.create_task(started.wait(), name="migration-watch-started")
        try:
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not started.is_set():
                await task
            yield task
        finally:
            for each in (task, waiting):
                each.cancel()
            await asyncio.gather(task, waiting, return_exceptions=True)

    async def _watch(self, pending: Pending, started: asyncio.Event) -> None:
        request = pb.WatchRequest(key="", key_end=_LAST_KEY)
        stream = self._connection(self.address).stream(
            m.WATCH, request, None, start_seconds=_START_SECONDS, started=started.set
        )
        try:
            async with aclosing(stream) as answers:
                async for answer in answers:
                    pending.event(watch_event_of(answer.message))
        except CallFailedError as error:
            raise error.outcome.error from error
        raise NotDoneError(f"{self.address}: the server ended the watch")

    async def _unary(self, address: str, method: m.Method, request: Any) -> Any:
        try:
            return (await self._connection(address).unary(method, request, _CALL_SECONDS)).message
        except CallFailedError as error:
            raise error.outcome.error from error

    # ------------------------------------------------------------------------- the whole cluster

    async def position(self) -> Position:
        """Ask every member that can be reached. Raises RequestError when the present node does not answer."""
        own = await self.status()
        members: pb.MemberListReply = await self._unary(self.address, m.MEMBER_LIST, pb.MemberListRequest())
        others = {*self.addresses, *members.data} - {self.address, ""}
        found = await asyncio.gather(*(_unless_silent(self.status(address)) for address in sorted(others)))
        statuses = [own, *(status for status in found if status is not None)]
        voters = {voter.partition(" ")[0].removeprefix("id=") for voter in own.voters}
        asked = voters & {str(status.id) for status in statuses}
        if len(asked) <= len(voters) // 2:
            text = f"{len(asked)} of the {len(voters)} voters of the source can be asked; name more of them with --from"
            return Position(own.last_seq, own.last_log_index, False, False, text)
        last_seq = max(status.last_seq for status in statuses)
        last_log_index = max(status.last_log_index for status in statuses)
        applied_index = int(own.last_applied.rpartition(".")[2] or 0)
        has_newest = own.last_seq == last_seq
        return Position(last_seq, last_log_index, has_newest and applied_index == last_log_index, has_newest)


async def _unless_silent(answer: Awaitable[Result]) -> Result | None:
    try:
        return await answer
    except MetasrvError:
        return None
