"""Making this node the first member of a new cluster.

Decides nothing: `node/beginning.py` asks the other nodes first, because a node that begins a cluster although one exists
splits the clients between the two. Runs on the node's event loop.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from metasrv.consensus import Standing
from metasrv.model.entries import encode_membership_entry
from metasrv.model.errors import IdentityError
from metasrv.model.types import Member, Membership
from metasrv.raft.replica import Replica

_POLL_SECONDS = 0.005


class Beginning:
    """What this node is before it belongs to a cluster, and how it begins one."""

    def __init__(self, replica: Replica, adopt: Callable[[str], None]) -> None:
        self._replica = replica
        self._adopt = adopt
        self.meant = False
        """This node is about to begin a cluster unless it hears of one; other nodes are told when they ask."""

    def possible(self) -> bool:
        """Whether this node has never belonged to a cluster: it knows none and its log holds nothing of one."""
        replica = self._replica
        known = replica.resources.directory.identity.cluster_id is not None or replica.engine.membership().voters
        return not known and replica.store.last_index == 1

    def heard_of_another(self) -> bool:
        """Whether a member of some cluster has sent this node messages, which alone raise the term of an empty node."""
        return self._replica.engine.term() > 0

    def standing(self) -> Standing:
        """The answer to another node that asks."""
        cluster_id = self._replica.resources.directory.identity.cluster_id
        return Standing(self._replica.node_id, cluster_id, self.meant and cluster_id is None)

    async def begin(self) -> None:
        """Write the first membership, with this node alone, and name the cluster. Raises IdentityError if it has one.

        The entry is on disk before the name is: `node/opening.py` names a cluster whose beginning was cut off in between.
        """
        replica = self._replica
        await replica.until_free()
        if not self.possible():
            raise IdentityError("this node belongs to a cluster, so it cannot begin another one")
        identity, store, engine = replica.resources.directory.identity, replica.store, replica.engine
        first = Membership({replica.node_id: Member(replica.resources.settings.endpoint, identity.incarnation)}, {})
        store.add(encode_membership_entry(replica.node_id, Membership(), first), store.last_index + 1, engine.term())
        engine.adopt(first)
        engine.set_election_deadline(replica.clock.monotonic())
        while store.dirty:  # until a step has taken it
            replica.driver.wake()
            await asyncio.sleep(_POLL_SECONDS)
        await replica.until_free()
        if replica.driver.fatal is not None:
            raise replica.driver.fatal
        self._adopt(uuid.uuid4().hex)
        self.meant = False
