"""Counts of keys by directory, as SnapshotKeysLayout answers them (docs/contract/grpc.md section g.1).

Pure; runs anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def keys_layout(pages: Iterable[Sequence[str]], depth: int | None = None) -> Iterator[list[tuple[str, int]]]:
    """(directory, key count) for every directory of the keys, which come in pages and in ascending order.

    The last `/` segment of a key is its name; the segments before it are its directories. A directory is emitted when the
    walk leaves it, the deepest first; `depth` keeps those of at most `depth` segments. The last item is ("", total).
    Each page gives one list, perhaps empty, so that the caller can pause between pages; a last list has the rest.
    """
    segments: list[str] = []
    counts: list[int] = []
    total = 0
    for keys in pages:
        left: list[tuple[str, int]] = []
        for key in keys:
            directories = key.split("/")[:-1]
            if depth is not None:
                del directories[depth:]
            common = 0
            for present, wanted in zip(segments, directories, strict=False):
                if present != wanted:
                    break
                common += 1
            left += _leave(segments, counts, common)
            segments += directories[common:]
            counts += [0] * (len(directories) - common)
            for level in range(len(counts)):
                counts[level] += 1
        total += len(keys)
        yield left
    yield [*_leave(segments, counts, 0), ("", total)]


def _leave(segments: list[str], counts: list[int], keep: int) -> Iterator[tuple[str, int]]:
    while len(segments) > keep:
        yield "/".join(segments), counts.pop()
        segments.pop()
