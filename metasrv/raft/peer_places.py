"""Where each peer is dialled: where it says that it is, otherwise where the log has it.

A member that was started at another address proves itself when it dials, and is answered there at once; the log follows
as soon as there is a leader (`address_changes.py`). What a peer has said is kept in memory only: after a restart it says
it again, or other nodes are asked (`member_search.py`). Knows no connection. Runs on the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metasrv.model.types import Endpoint, Member, Membership, Node

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a member, or somebody about it, has said."""

    incarnation: str
    endpoint: Endpoint


class PeerPlaces:
    """The places of the members other than this node."""

    def __init__(self, heard: Callable[[int], bool]) -> None:
        """`heard`: whether the node has a connection to this one now, on which it said where it is."""
        self._heard = heard
        self._said: dict[int, _Said] = {}
        self._recorded: dict[int, Endpoint] = {}
        self._logged: set[tuple[int, Endpoint, Endpoint]] = set()

    def said(self, node_id: int, member: Member, endpoint: Endpoint) -> bool:
        """The member, with its admitted data directory, is at `endpoint`; whether that is news."""
        said = _Said(member.incarnation, endpoint)
        news = self._said.get(node_id) != said
        self._said[node_id] = said
        return news

    def recorded(self, node_id: int) -> Endpoint | None:
        """Where the log has a member, as of the last `all`."""
        return self._recorded.get(node_id)

    def all(self, membership: Membership, nodes: Mapping[int, Node]) -> dict[int, Endpoint]:
        """Where each member is to be dialled; `nodes` is the registry."""
        places: dict[int, Endpoint] = {}
        recorded: dict[int, Endpoint] = {}
        for group in (membership.voters, membership.learners):
            for node_id, member in group.items():
                registered = nodes.get(node_id)
                recorded[node_id] = registered.endpoint if registered is not None else member.endpoint
                places[node_id] = self._place(node_id, member, recorded[node_id])
        self._said = {node_id: said for node_id, said in self._said.items() if node_id in recorded}
        self._recorded = recorded
        return places

    def _place(self, node_id: int, member: Member, recorded: Endpoint) -> Endpoint:
        said = self._said.get(node_id)
        if said is None:
            return recorded
        changed = self._recorded.get(node_id, recorded) != recorded
        if said.incarnation != member.incarnation or (changed and not self._heard(node_id)):
            # The log was told of an address later than this node was.
            del self._said[node_id]
            return recorded
        difference = (node_id, said.endpoint, recorded)
        if said.endpoint != recorded and difference not in self._logged:
            self._logged.add(difference)
            logger.warning(
                "node %d is at %s, and the cluster has it at %s: it is dialled at %s, and the cluster is told once "
                "there is a leader",
                node_id,
                said.endpoint,
                recorded,
                said.endpoint,
            )
        return said.endpoint
