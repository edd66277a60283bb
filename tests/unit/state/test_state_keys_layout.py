"""Counts of keys by directory (docs/contract/grpc.md section g.1)."""

from __future__ import annotations

import pytest

from metasrv.state.keys_layout import keys_layout

KEYS = sorted(["a", "a/1", "a/2", "a/b/1", "a/b/c/1", "a/b-c/1", "b/x/y/1", "c"])


def layout_of(keys: list[str], depth: int | None = None, page_keys: int = 100) -> list[tuple[str, int]]:
    pages = [keys[at : at + page_keys] for at in range(0, len(keys), page_keys)]
    return [item for page in keys_layout(pages, depth) for item in page]


def test_directories_come_when_they_are_left_deepest_first() -> None:
    assert layout_of(KEYS) == [
        ("a/b-c", 1),
        ("a/b/c", 1),
        ("a/b", 2),
        ("a", 5),
        ("b/x/y", 1),
        ("b/x", 1),
        ("b", 1),
        ("", 8),
    ]


@pytest.mark.parametrize(
    ("depth", "layout"),
    [(0, [("", 8)]), (1, [("a", 5), ("b", 1), ("", 8)]), (9, layout_of(KEYS))],
)
def test_depth_keeps_directories_of_so_many_segments(depth: int, layout: list[tuple[str, int]]) -> None:
    assert layout_of(KEYS, depth) == layout


def test_an_empty_store_has_only_the_total() -> None:
    assert layout_of([]) == [("", 0)]


@pytest.mark.parametrize("page_keys", range(1, len(KEYS) + 1))
def test_where_a_page_ends_makes_no_difference(page_keys: int) -> None:
    assert layout_of(KEYS, page_keys=page_keys) == layout_of(KEYS)
