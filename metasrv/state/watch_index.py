"""Which watched ranges contain a key: an interval treap.

A change must not cost more because others watch other keys. The tree is ordered
by (start, end), every node knows the largest end below it, and random priorities keep it shallow, so that a
lookup visits O(log n) nodes and those that match. Pure data structure; runs on the event loop.
"""

from __future__ import annotations

from random import Random
from typing import Generic, TypeVar

Subscriber = TypeVar("Subscriber")


class _Node(Generic[Subscriber]):
    """Subscribers of one distinct range."""

    __slots__ = ("end", "end_max", "left", "priority", "right", "start", "subscribers")

    def __init__(self, start: str, end: str, priority: float) -> None:
        self.start = start
        self.end = end
        self.end_max = end
        self.priority = priority
        self.left: _Node[Subscriber] | None = None
        self.right: _Node[Subscriber] | None = None
        self.subscribers: dict[Subscriber, None] = {}

    def refresh(self) -> None:
        """Recompute the largest end below this node."""
        end_max = self.end
        if self.left is not None and self.left.end_max > end_max:
            end_max = self.left.end_max
        if self.right is not None and self.right.end_max > end_max:
            end_max = self.right.end_max
        self.end_max = end_max


class RangeIndex(Generic[Subscriber]):
    """Subscribers by range [start, end); several may share one range."""

    def __init__(self) -> None:
        self._root: _Node[Subscriber] | None = None
        self._nodes: dict[tuple[str, str], _Node[Subscriber]] = {}
        self._random = Random(20)  # noqa: S311 - shapes a tree, guards nothing

    def add(self, start: str, end: str, subscriber: Subscriber) -> None:
        """Register `subscriber`; `start` < `end`."""
        node = self._nodes.get((start, end))
        if node is None:
            node = self._nodes[start, end] = _Node(start, end, self._random.random())
            self._root = _insert(self._root, node)
        node.subscribers[subscriber] = None

    def remove(self, start: str, end: str, subscriber: Subscriber) -> None:
        """Forget a registered subscriber."""
        node = self._nodes[start, end]
        del node.subscribers[subscriber]
        if not node.subscribers:
            del self._nodes[start, end]
            self._root = _remove(self._root, node)

    def overlaps(self, start: str, end: str | None) -> bool:
        """Whether any range has a key in common with [start, end); None is no end. Looks at O(log n) nodes."""
        node = self._root
        while node is not None:
            if start < node.end and (end is None or node.start < end):
                return True
            # If a range on the left ends after `start` without being one, it begins at `end` or later, as does all
            # that is on the right: then there is none at all, and looking to the left finds that.
            left = node.left
            node = left if left is not None and start < left.end_max else node.right
        return False

    def find(self, key: str) -> list[Subscriber]:
        """All subscribers whose range contains `key`."""
        found: list[Subscriber] = []
        stack = [self._root]
        while stack:
            node = stack.pop()
            if node is None or node.end_max <= key:
                continue
            stack.append(node.left)
            if node.start <= key:
                if key < node.end:
                    found.extend(node.subscribers)
                stack.append(node.right)
        return found


def _insert(root: _Node[Subscriber] | None, node: _Node[Subscriber]) -> _Node[Subscriber]:
    if root is None:
        return node
    if node.priority > root.priority:
        node.left, node.right = _split(root, (node.start, node.end))
        node.refresh()
        return node
    if (node.start, node.end) < (root.start, root.end):
        root.left = _insert(root.left, node)
    else:
        root.right = _insert(root.right, node)
    root.refresh()
    return root


def _split(
    root: _Node[Subscriber] | None, at: tuple[str, str]
) -> tuple[_Node[Subscriber] | None, _Node[Subscriber] | None]:
    """Subtrees with ranges below `at` and above it."""
    if root is None:
        return None, None
    if (root.start, root.end) < at:
        root.right, above = _split(root.right, at)
        root.refresh()
        return root, above
    below, root.left = _split(root.left, at)
    root.refresh()
    return below, root


def _remove(root: _Node[Subscriber] | None, node: _Node[Subscriber]) -> _Node[Subscriber] | None:
    if root is None:
        return None
    if root is node:
        return _merge(node.left, node.right)
    if (node.start, node.end) < (root.start, root.end):
        root.left = _remove(root.left, node)
    else:
        root.right = _remove(root.right, node)
    root.refresh()
    return root


def _merge(left: _Node[Subscriber] | None, right: _Node[Subscriber] | None) -> _Node[Subscriber] | None:
    if left is None or right is None:
        return left or right
    if left.priority > right.priority:
        left.right = _merge(left.right, right)
        left.refresh()
        return left
    right.left = _merge(left, right.left)
    right.refresh()
    return right
