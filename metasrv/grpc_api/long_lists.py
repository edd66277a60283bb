"""The pages of a long list: kept ones where somebody just read the same list, others from a helper thread.

Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TypeVar

from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.context import WholeView
from metasrv.grpc_api.items import item_batches
from metasrv.grpc_api.kept_lists import KeptLists
from metasrv.grpc_api.readers import PinnedReader
from metasrv.grpc_api.row_items import row_batches
from metasrv.model.types import U64_MAX
from metasrv.state.format import prefix_end
from metasrv.state.reader import StateReader

Row = TypeVar("Row")


async def list_pages(
    reader: PinnedReader[WholeView], kept: KeptLists, prefix: str, limit: int | None, now_ms: int
) -> AsyncGenerator[Sequence[Batch], None]:
    """Every record under `prefix` in key order, at most `limit`, without what has expired by `now_ms`.

    Whole lists that hide nothing are kept.
    """
    if now_ms or limit is not None:
        async for page in reader.iterate(encoded_pages(reader.view, prefix, limit, now_ms)):
            yield page
        return
    taken = kept.take(reader.view.last_applied, prefix)
    try:
        if taken.is_whole:
            for kept_page in taken.pages:
                yield kept_page
            return
        async for page in reader.iterate(encoded_pages(reader.view, prefix, None, 0)):
            kept.add(taken, page)
            yield page
        kept.finish(taken)
    finally:
        kept.give_back(taken)


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
