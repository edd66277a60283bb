"""How a limit is divided among clients, so that no address takes all of it and who has shown a token finds room. Pure.

An address cannot be forged on a connection that was accepted, and a token only by who knows the cluster's key. Clients
behind one address share its portion, so the portions are large.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Standing(IntEnum):
    """What the peer of a connection has proved."""

    STRANGER = 0
    """Its address."""
    CLIENT = 1
    """That it has a valid token."""
    MEMBER = 2
    """That it has a valid token, from this machine or the address of a member of the cluster."""


class Portions(NamedTuple):
    """A limit and its portions, each by standing."""

    limit: int
    together: tuple[int, int, int]
    """Past this much in use, whoever uses it, a peer of the standing gets no more."""
    each: tuple[int, int, int]
    """The most that all peers of one address and one standing have."""

    def refuses(self, standing: Standing, in_use: int, own: int) -> bool:
        """Whether so much in use, and so much of it by peers of the address and standing, is more than there may be."""
        return in_use > self.together[standing] or own > self.each[standing]


def portions_of(limit: int) -> Portions:
    """Strangers of one address get a quarter and leave a quarter free; clients get a half and leave members an eighth."""
    quarter, half = max(1, limit // 4), max(1, limit // 2)
    return Portions(limit, (limit - limit // 4, limit - limit // 8, limit), (quarter, half, half))


def undivided(limit: int) -> Portions:
    """The limit for whoever comes first."""
    return Portions(limit, (limit,) * 3, (limit,) * 3)
