"""Sending a long list: kept pages where somebody just read the same list, others from a helper thread.

Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.calls import Stream
from metasrv.grpc_api.context import WholeView
from metasrv.grpc_api.items import item_batches
from metasrv.grpc_api.kept_lists import KeptList, KeptLists
from metasrv.grpc_api.readers import PinnedReader, Readers, deliver_page
from metasrv.grpc_api.row_items import row_batches
from metasrv.model.types import U64_MAX
from metasrv.state.format import prefix_end
from metasrv.state.reader import StateReader

Row = TypeVar("Row")


async def send_list(
    readers: Readers, kept: KeptLists, stream: Stream, prefix: str, limit: int | None, now_ms: int
) -> AsyncGenerator[int, None]:
    """Send every record under `prefix` in key order, at most `limit`, without what has expired by `now_ms`.

    Yields how many were sent, after each page. Whole lists that hide nothing are kept.
    """
    if now_ms or limit is not None:
        async with readers.open(stream.call) as reader:
            async for read_page in reader.iterate(encoded_pages(reader.view, prefix, limit, now_ms)):
                await reader.deliver(stream, read_page)
                yield _messages_of(read_page)
        return
    taken = kept.take_now(prefix)
    try:
        if taken is not None and taken.is_whole:
            for kept_page in taken.pages:
                await deliver_page(stream, kept_page)
                yield _messages_of(kept_page)
            return
        async with readers.open(stream.call) as reader:
            if taken is None:
                taken = kept.take(prefix, reader.view.last_applied)
            async with aclosing(_pages(reader, kept, taken)) as pages:
                async for page in pages:
                    await reader.deliver(stream, page)
                    yield _messages_of(page)
    finally:
        if taken is not None:
            kept.give_back(taken)


async def _pages(
    reader: PinnedReader[WholeView], kept: KeptLists, taken: KeptList
) -> AsyncGenerator[Sequence[Batch], None]:
    if taken.is_whole:
        for kept_page in taken.pages:
            yield kept_page
        return
    async for page in reader.iterate(encoded_pages(reader.view, taken.prefix, None, 0)):
        kept.add(taken, page)
        yield page
    kept.finish(taken)


def _messages_of(page: Sequence[Batch]) -> int:
    return sum(batch.messages for batch in page)


def encoded_pages(view: WholeView, prefix: str, limit: int | None, now_ms: int) -> Iterator[list[Batch]]:
    """Encoded items of the records under `prefix`, at most `limit`, in the view's pages.

    A view of the state file on this machine gives rows, which cost less than records.
    """
    end = prefix_end(prefix)
    if isinstance(view, StateReader):
        return map(row_batches, _at_most(limit, view.raw_pages(prefix, end, now_ms)))
    return map(item_batches, _at_most(limit, view.pages(prefix, end, now_ms)))


def _at_most(limit: int | None, pages: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """The pages that hold anything, until `limit` rows are through."""
    left = U64_MAX if limit is None else limit
    for rows in pages:
        page = rows[:left]
        if page:
            yield page
        left -= len(page)
        if left <= 0:
            return
