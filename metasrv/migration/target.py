"""The cluster that records go to: the steps of a migration, each taken once or several times to the same end.

A step whose outcome is unknown may still be on its way. Before it is sent again the run gets a new number, so that what
comes late is refused: a record that was deleted meanwhile does not come back. Runs on the event loop of a program of its
own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from metasrv.client import AsyncClient
from metasrv.migration.changes import Change
from metasrv.migration.spooling import write_lines
from metasrv.model.errors import MetasrvError, NotDoneError, UnknownOutcomeError
from metasrv.model.limits import MIGRATED_RECORDS_MAX
from metasrv.model.types import KVMeta
from metasrv.protocol.proto import meta_pb2 as pb

_BATCH_SIZE_BYTES = 64 * 1024
_AGAIN_SECONDS = 0.5
Step = pb.MigrateRequest


class MigrationRefusedError(MetasrvError):
    """The target does not take the step, or source and target cannot be made equal; the text says why."""


class Target:
    """The steps, over a client of the target."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._source = ""
        self._run = 0

    @property
    def cluster_id(self) -> str | None:
        return self._client.cluster_id

    @property
    def run(self) -> int:
        """The number of this run, once it leads the migration."""
        return self._run

    async def addresses(self) -> list[str]:
        """Where clients find the members. Raises RequestError."""
        return [address for address in await self._client.member_list() if address]

    async def begin(self, source: str) -> pb.MigrateReply:
        """Begin the migration, or lead one that is under way. Raises MigrationRefusedError, RequestError."""
        self._source = source
        while True:
            self._run += 1
            try:
                reply = await self._client.migrate(pb.MigrateRequest(step=Step.BEGIN, run=self._run, source=source))
            except UnknownOutcomeError:
                continue
            if not reply.refused:
                return reply
            if reply.source != source or reply.run < self._run:
                raise MigrationRefusedError(reply.refused)
            self._run = reply.run

    async def store(self, changes: Iterable[Change], last_seq: int = 0) -> int:
        """Store changes, those of one key in order; returns how many. Raises MigrationRefusedError, RequestError."""
        count = 0
        for batch in _batches(changes):
            await self._step(pb.MigrateRequest(step=Step.STORE, last_seq=last_seq, records=batch))
            count += len(batch)
        return count

    async def finish(self, key_count: int, last_seq: int) -> pb.MigrateReply:
        """End the migration with exactly so many keys. Raises MigrationRefusedError, RequestError."""
        return await self._end(pb.MigrateRequest(step=Step.FINISH, count=key_count, last_seq=last_seq))

    async def abort(self) -> int:
        """Delete what was stored and end the migration; returns how many keys there were.

        Raises MigrationRefusedError, RequestError.
        """
        asked = await self._client.migrate(pb.MigrateRequest(step=Step.ABORT))
        if not asked.source:
            raise MigrationRefusedError(asked.refused)
        self._run = asked.run
        reply = await self.begin(asked.source)
        total = reply.key_count
        while reply.key_count:
            reply = await self._step(pb.MigrateRequest(step=Step.CLEAR, count=MIGRATED_RECORDS_MAX))
        await self._end(pb.MigrateRequest(step=Step.ABORT))
        return total

    async def export(self, path: str) -> None:
        """Write an export of the target to a file, once a quorum has confirmed that it is whole."""
        await write_lines(self._client.archive_messages(), path)

    async def _step(self, request: pb.MigrateRequest) -> pb.MigrateReply:
        while True:
            request.run = self._run
            try:
                reply = await self._client.migrate(request)
            except UnknownOutcomeError:
                await self.begin(self._source)
                continue
            if reply.refused:
                raise MigrationRefusedError(reply.refused)
            return reply

    async def _end(self, request: pb.MigrateRequest) -> pb.MigrateReply:
        """FINISH or ABORT: after an unknown outcome, no migration under way means that it was done."""
        request.run = self._run
        unknown = False
        while True:
            try:
                reply = await self._client.migrate(request)
            except UnknownOutcomeError:
                unknown = True
                continue
            except NotDoneError:
                if not unknown:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)  # whether it was done has to be found out
                continue
            if reply.refused and not (unknown and not reply.source):
                raise MigrationRefusedError(reply.refused)
            return reply


def _batches(changes: Iterable[Change]) -> Iterator[Sequence[pb.MigratedRecord]]:
    batch: list[pb.MigratedRecord] = []
    size_bytes = 0
    for key, seq, record in changes:
        if record is None:
            batch.append(pb.MigratedRecord(key=key, seq=seq))
        else:
            expire_at, proposed_at_ms = record.meta or KVMeta()
            size_bytes += len(record.data)
            batch.append(
                pb.MigratedRecord(
                    key=key, seq=seq, data=record.data, expire_at=expire_at, proposed_at_ms=proposed_at_ms or 0
                )
            )
        if len(batch) == MIGRATED_RECORDS_MAX or size_bytes >= _BATCH_SIZE_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
