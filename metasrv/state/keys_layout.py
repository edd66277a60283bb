"""Counts of keys by directory, as SnapshotKeysLayout answers them (grpc.md g.1). Pure; runs anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def keys_layout(keys: Iterable[str], depth: int | None = None) -> Iterator[tuple[str, int]]:
    """(directory, key count) for every directory of `keys`, which come in ascending order.

    A key's last `/` segment is its name; what is before it are its directories. A directory is emitted when the walk
    leaves it, the deepest first; `depth` keeps directories of at most so many segments. The last item is ("", total).
    """
    segments: list[str] = []
    counts: list[int] = []
    total = 0
    for key in keys:
        total += 1
        directories = key.split("/")[:-1]
        if depth is not None:
            del directories[depth:]
        common = 0
        for left, right in zip(segments, directories, strict=False):
            if left != right:
                break
            common += 1
        yield from _leave(segments, counts, common)
        segments += directories[common:]
        counts += [0] * (len(directories) - common)
        for level in range(len(counts)):
            counts[level] += 1
    yield from _leave(segments, counts, 0)
    yield "", total


def _leave(segments: list[str], counts: list[int], keep: int) -> Iterator[tuple[str, int]]:
    while len(segments) > keep:
        yield "/".join(segments), counts.pop()
        segments.pop()
