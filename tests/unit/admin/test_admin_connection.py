"""Which connection gives its place to a new one."""

from __future__ import annotations

from typing import cast

from metasrv.admin.connection import BoundedProtocol, Waits, _take_place

CLOSING, IDLE, UNREAD = Waits
Where = tuple[Waits, float] | None


class Held:
    """A connection that waits for its client, or does not."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self.told: list[tuple[Waits, str]] = []

    def waits_for_client(self) -> Where:
        return self._where

    def give_place(self, waits: Waits, reason: str) -> None:
        self.told.append((waits, reason))


def taken(*places: Where, settled_at: float = 100.0, from_newcomers: bool = True) -> int | None:
    """Which of the connections has to go; None when none does."""
    held = [Held(where) for where in places]
    done = _take_place(cast(list[BoundedProtocol], held), "to make room", settled_at, from_newcomers=from_newcomers)
    gone = [number for number, one in enumerate(held) if one.told]
    assert len(gone) == done
    for number in gone:
        where = places[number]
        assert where is not None
        assert held[number].told == [(where[0], "to make room")]
    return gone[0] if gone else None


def test_the_longest_idle_goes_first_then_the_longest_unread() -> None:
    assert taken(None, (UNREAD, 1.0), (IDLE, 9.0), (IDLE, 8.0), (IDLE, 8.0)) == 3
    assert taken((UNREAD, 7.0), None, (UNREAD, 6.0)) == 2


def test_what_the_node_works_for_stays() -> None:
    assert taken(None, None) is None
    assert taken() is None


def test_a_connection_that_is_being_closed_goes_before_all_others() -> None:
    assert taken((IDLE, 1.0), (CLOSING, 9.0), (CLOSING, 8.0)) == 2
    assert taken((IDLE, 1.0), (CLOSING, 9.0), settled_at=5.0, from_newcomers=False) == 1


def test_newcomers_go_last_by_their_age_alone() -> None:
    assert taken((IDLE, 9.0), (UNREAD, 4.0), settled_at=5.0) == 1
    assert taken((IDLE, 9.0), (UNREAD, 8.0), settled_at=5.0) == 1, "what has just come may be a probe"
    assert taken((IDLE, 9.0), (UNREAD, 8.0), None, settled_at=5.0, from_newcomers=False) is None
    assert taken((IDLE, 5.0), (UNREAD, 8.0), settled_at=5.0, from_newcomers=False) == 0
