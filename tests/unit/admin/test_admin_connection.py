"""Which connection gives its place to a new one."""

from __future__ import annotations

from typing import cast

from metasrv.admin.connection import BoundedProtocol, _take_place


class Held:
    """A connection that waits for its client, or does not."""

    def __init__(self, waits: tuple[bool, float] | None) -> None:
        self._waits = waits
        self.told: list[tuple[bool, str]] = []

    def waits_for_client(self) -> tuple[bool, float] | None:
        return self._waits

    def give_place(self, unread: bool, reason: str) -> None:
        self.told.append((unread, reason))


def taken(*waits: tuple[bool, float] | None) -> tuple[bool, list[int]]:
    """What `_take_place` says, and which of the connections had to go."""
    held = [Held(one) for one in waits]
    done = _take_place(cast(list[BoundedProtocol], held), "to make room")
    assert all(told == [(one is not None and one[0], "to make room")] for told, one in _told(held, waits))
    return done, [number for number, one in enumerate(held) if one.told]


def _told(
    held: list[Held], waits: tuple[tuple[bool, float] | None, ...]
) -> list[tuple[list[tuple[bool, str]], tuple[bool, float] | None]]:
    return [(one.told, wait) for one, wait in zip(held, waits, strict=True) if one.told]


def test_the_longest_idle_goes_first_then_the_longest_unread() -> None:
    assert taken(None, (True, 1.0), (False, 9.0), (False, 8.0), (False, 8.0)) == (True, [3])
    assert taken((True, 7.0), None, (True, 6.0)) == (True, [2])


def test_what_the_node_works_for_stays() -> None:
    assert taken(None, None) == (False, [])
    assert taken() == (False, [])
