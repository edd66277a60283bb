"""The methods that walk over everything: Export, ExportV1, SnapshotKeysLayout (grpc.md section g).

One pinned view a call, read in a helper thread, so that neither the event loop nor the writers wait. Runs on the
event loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from metasrv.context import NodeContext
from metasrv.grpc_api.calls import Stream
from metasrv.grpc_api.export_lines import export_messages
from metasrv.grpc_api.proto import meta_pb2 as pb
from metasrv.grpc_api.readers import Readers
from metasrv.limits import EXPORT_CHUNK_LINES_MAX
from metasrv.state.keys_layout import keys_layout

CHUNK_LINES_DEFAULT = 32
PAGE_MESSAGES = 512


class ExportMethods:
    """Bodies of the methods that read the whole state."""

    def __init__(self, context: NodeContext, readers: Readers) -> None:
        self._consensus = context.consensus
        self._readers = readers

    async def export(self, request: pb.Empty, stream: Stream) -> None:
        """Export: the old form, without a choice of the chunk size."""
        del request
        await self._export(CHUNK_LINES_DEFAULT, stream)

    async def export_v1(self, request: pb.ExportRequest, stream: Stream) -> None:
        """ExportV1: as many lines a message as asked for, at least one, at most EXPORT_CHUNK_LINES_MAX."""
        lines = request.chunk_size if request.HasField("chunk_size") else CHUNK_LINES_DEFAULT
        await self._export(max(1, min(lines, EXPORT_CHUNK_LINES_MAX)), stream)

    async def _export(self, chunk_lines: int, stream: Stream) -> None:
        node_id = self._consensus.status().node_id
        async with self._readers.open() as reader:
            async for page in reader.iterate(export_messages(reader.view, node_id, chunk_lines), patient=True):
                await reader.deliver(stream, page)

    async def snapshot_keys_layout(self, request: pb.KeysLayoutRequest, stream: Stream) -> None:
        """SnapshotKeysLayout: key counts by directory, children before parents, the total last."""
        depth = request.depth if request.HasField("depth") else None
        async with self._readers.open() as reader:
            async for page in reader.iterate(_layout_messages(reader.view.keys(), depth), patient=True):
                await reader.deliver(stream, page)


def _layout_messages(keys: Iterator[str], depth: int | None) -> Iterator[list[bytes]]:
    page: list[bytes] = []
    for prefix, count in keys_layout(keys, depth):
        page.append(pb.KeysCount(prefix=prefix, count=count).SerializeToString())
        if len(page) >= PAGE_MESSAGES:
            yield page
            page = []
    if page:
        yield page
