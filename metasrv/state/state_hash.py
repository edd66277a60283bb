"""A hash of everything replicated at one position of the log: equal on every node that has applied the same entries.

Nodes exchange it (`node/copies.py`), and the simulator compares it at every entry. The cluster's id is not in it: it is
not in the log. Pure; runs anywhere.
"""

from __future__ import annotations

from hashlib import blake2b

from metasrv.model.entries import membership_to_tree
from metasrv.model.types import NO_LIMITS, Membership
from metasrv.model.wire import pack
from metasrv.state.format import Applied
from metasrv.state.registry import Registry

HASH_SIZE_BYTES = 16


def state_hash(applied: Applied, registry: Registry, membership: Membership) -> bytes:
    """16 bytes; a few microseconds."""
    log_id, *scalars, data_size_bytes = applied
    tree: list[object] = [
        (log_id.term, log_id.index, *scalars),
        [registry.nodes[node_id] for node_id in sorted(registry.nodes)],
        list(registry.features),
        sorted(registry.secrets.items()),
        [sorted(group.items()) for group in membership_to_tree(membership)],
    ]
    if registry.limits != NO_LIMITS:
        # Builds that do not know limits have the same hash as long as there are none.
        tree.append((registry.limits, data_size_bytes))
    return blake2b(pack(tree), digest_size=HASH_SIZE_BYTES).digest()
