"""The methods that walk over everything: Export, ExportV1, SnapshotKeysLayout (docs/contract/grpc.md section g).

Each call reads one pinned view or one snapshot file in a helper thread, so that neither the event loop nor the writers
wait. Runs on the event loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from metasrv.grpc_api.batches import batches_of
from metasrv.grpc_api.calls import Call, Stream, cluster_metadata, metadata_value, timeout_ms_of
from metasrv.grpc_api.context import GrpcContext
from metasrv.grpc_api.export_lines import ArchiveHead, export_messages
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.handshake import Authenticator
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.readers import Readers
from metasrv.model.errors import DataDamagedError, StorageError
from metasrv.model.limits import EXPORT_CHUNK_LINES_MAX
from metasrv.model.migration import migration_among
from metasrv.protocol.methods import (
    ARCHIVE_EXPORT,
    EXPORT_METADATA_KEY,
    INCLUDE_SECRETS,
    LOCAL_ARCHIVE_EXPORT,
    SECRETS_METADATA_KEY,
)
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.keys_layout import keys_layout
from metasrv.state.snapshot_keys import SnapshotKeys

logger = logging.getLogger(__name__)

CHUNK_LINES_DEFAULT = 32


class ExportMethods:
    """Bodies of the methods that read the whole state."""

    def __init__(self, context: GrpcContext, readers: Readers, authenticator: Authenticator) -> None:
        self._context = context
        self._authenticator = authenticator
        self._consensus = context.consensus
        self._machine = context.machine
        self._clock = context.clock
        self._readers = readers

    async def export(self, request: pb.Empty, stream: Stream) -> None:
        """Export: the older method, without a choice of the chunk size."""
        del request
        await self._export(CHUNK_LINES_DEFAULT, stream)

    async def export_v1(self, request: pb.ExportRequest, stream: Stream) -> None:
        """ExportV1: as many lines a message as asked for, at least one, at most EXPORT_CHUNK_LINES_MAX.

        Of an archive, where the metadata ask for one.
        """
        lines = request.chunk_size if request.HasField("chunk_size") else CHUNK_LINES_DEFAULT
        wanted = metadata_value(stream.call, EXPORT_METADATA_KEY)
        head = None
        if wanted == ARCHIVE_EXPORT:
            await self._consensus.read_barrier(timeout_ms_of(stream.call))
            head = await self._head(confirmed=True)
        elif wanted == LOCAL_ARCHIVE_EXPORT:
            head = await self._head(confirmed=False)
        if head is not None and await self._may_have_secrets(stream.call):
            head = head.with_secrets()
        await self._export(max(1, min(lines, EXPORT_CHUNK_LINES_MAX)), stream, head)

    async def _export(self, chunk_lines: int, stream: Stream, head: ArchiveHead | None = None) -> None:
        status = await self._context.fresh_status()
        await self._context.until_readable()
        async with self._readers.open(stream.call) as reader:
            await stream.start(cluster_metadata(self._machine.cluster_id))
            messages = export_messages(reader.view, status.node_id, status.purged, chunk_lines, head)
            async for page in reader.iterate(map(batches_of, messages), patient=True):
                await reader.deliver(stream, page)

    async def _may_have_secrets(self, call: Call) -> bool:
        """Whether the call asks for secrets and is root's, proved by a password: who has the key of tokens is anybody.

        Where no password is asked for there is nothing that they would protect.
        """
        config = self._context.config
        if metadata_value(call, SECRETS_METADATA_KEY) != INCLUDE_SECRETS:
            return False
        if config.grpc_password is None or not config.grpc_tokens_for_all:
            return False
        return await self._authenticator.check(call) is None

    async def _head(self, *, confirmed: bool) -> ArchiveHead:
        status = await self._context.fresh_status()
        migration = migration_among(self._machine.secrets)
        return ArchiveHead(
            cluster_id=self._machine.cluster_id,
            node_id=status.node_id,
            saved_at_ms=self._clock.wall_ms(),
            confirmed=confirmed,
            last_log_index=status.last_log_id.index,
            leader_id=status.leader_id,
            features=self._machine.features,
            migrating_from="" if migration is None else migration.source,
        )

    async def snapshot_keys_layout(self, request: pb.KeysLayoutRequest, stream: Stream) -> None:
        """SnapshotKeysLayout: key counts by directory of the newest snapshot file, children before parents, total last.

        Nothing at all on a node that has no snapshot file.
        """
        path = (await self._context.fresh_status()).snapshot.path
        if path is None:
            return
        depth = request.depth if request.HasField("depth") else None
        try:
            async with self._readers.open_snapshot(path, stream.call) as reader:
                async for page in reader.iterate(map(batches_of, _layout_messages(reader.view, depth)), patient=True):
                    await reader.deliver(stream, page)
        except (DataDamagedError, StorageError) as error:
            # The advice in these errors is for a damaged state file; here only the snapshot is damaged.
            logger.error("the newest snapshot file cannot be read: %s", error)
            text = f"{os.path.basename(path)}, the newest snapshot, cannot be read; trigger another one"
            raise StatusError(StatusCode.DATA_LOSS, text) from error


def _layout_messages(snapshot: SnapshotKeys, depth: int | None) -> Iterator[list[bytes]]:
    if not snapshot.open():
        return
    for page in keys_layout(snapshot.pages(), depth):
        yield [pb.KeysCount(prefix=prefix, count=count).SerializeToString() for prefix, count in page]
