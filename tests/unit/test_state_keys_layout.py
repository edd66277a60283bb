"""Counts of keys by directory (grpc.md g.1)."""

from __future__ import annotations

import pytest

from metasrv.state.keys_layout import keys_layout

KEYS = sorted(["a", "a/1", "a/2", "a/b/1", "a/b/c/1", "a/b-c/1", "b/x/y/1", "c"])


def test_directories_come_when_they_are_left_deepest_first() -> None:
    assert list(keys_layout(KEYS)) == [
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
    [(0, [("", 8)]), (1, [("a", 5), ("b", 1), ("", 8)]), (9, list(keys_layout(KEYS)))],
)
def test_depth_keeps_directories_of_so_many_segments(depth: int, layout: list[tuple[str, int]]) -> None:
    assert list(keys_layout(KEYS, depth)) == layout


def test_an_empty_store_has_only_the_total() -> None:
    assert list(keys_layout([])) == [("", 0)]
