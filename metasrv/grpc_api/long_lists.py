"""The pages of a long list: kept ones where somebody just read the same list, others from a helper thread.

Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

from metasrv.grpc_api.batches import Batch
from metasrv.grpc_api.kept_lists import KeptLists
from metasrv.grpc_api.readers import PinnedReader
from metasrv.grpc_api.row_items import row_batches
from metasrv.model.types import U64_MAX
from metasrv.state.format import prefix_end
from metasrv.state.reader import StateReader


async def list_pages(
    reader: PinnedReader[StateReader], kept: KeptLists, prefix: str, limit: int | None, now_ms: int
) -> AsyncGenerator[Sequence[Batch], None]:
    """Every record under `prefix` in key order, at most `limit`, without what has expired by `now_ms`.

    Whole lists that hide nothing are kept.
    """
    if now_ms or limit is not None:
        async for page in reader.iterate(_encoded(reader.view, prefix, limit, now_ms)):
            yield page
        return
    taken = kept.take(reader.view.last_applied, prefix)
    try:
        if taken.is_whole:
            for kept_page in taken.pages:
                yield kept_page
            return
        async for page in reader.iterate(_encoded(reader.view, prefix, None, 0)):
            kept.add(taken, page)
            yield page
        kept.finish(taken)
    finally:
        kept.give_back(taken)


def _encoded(view: StateReader, prefix: str, limit: int | None, now_ms: int) -> Iterator[list[Batch]]:
    """In the view's pages."""
    left = U64_MAX if limit is None else limit
    for rows in view.raw_pages(prefix, prefix_end(prefix), now_ms):
        page = rows[:left]
        if page:
            yield row_batches(page)
        left -= len(page)
        if left <= 0:
            return
