"""The small replicated tables: registered nodes, feature flags, named secrets; and what writes the cluster refuses.

They are few, so the machine keeps them in memory; a `Registry` is immutable and is replaced when an entry that
changed it commits. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from zlib import crc32

from metasrv.model.codec import node_from_tree
from metasrv.model.migration import MIGRATION_NAME
from metasrv.model.types import NO_LIMITS, Node, WriteLimits
from metasrv.model.wire import byte_string, pack
from metasrv.state.damage import damaged
from metasrv.state.format import META_LIMITS, META_REGISTRY, limits_in, seal, unseal
from metasrv.state.store import Store


@dataclass(frozen=True, slots=True)
class Registry:
    """Nodes by id ascending, sorted names of the features that are on, secrets by name."""

    nodes: Mapping[int, Node] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    limits: WriteLimits = NO_LIMITS

    @property
    def is_migrating(self) -> bool:
        """Whether the records of another cluster are moved into this one (`migration_rules.py`)."""
        return MIGRATION_NAME in self.secrets


def load_registry(store: Store) -> Registry:
    """Read the three tables; raises DataDamagedError."""
    nodes: list[Node] = []
    for node_id, data in store.execute("SELECT node_id, node FROM nodes").fetchall():
        nodes.append(store.parsed(f"node {node_id}", lambda value: node_from_tree(unseal(value)), data))
    features = [row[0] for row in store.execute("SELECT name FROM features ORDER BY name")]
    secrets = {
        name: store.parsed(f"secret {name}", lambda value: byte_string(unseal(value)), data)
        for name, data in store.execute("SELECT name, secret FROM secrets ORDER BY name").fetchall()
    }
    stored_limits = store.meta(META_LIMITS)
    limits = NO_LIMITS if stored_limits is None else store.parsed("meta limits", limits_in, stored_limits)
    registry = Registry(nodes_by_id(nodes), tuple(features), MappingProxyType(secrets), limits)
    stored = store.meta(META_REGISTRY)
    if stored is not None and stored != registry_out(registry):
        raise damaged(
            store.path, "tables nodes, features, secrets, limits", "they are of another instant than the rest of the file"
        )
    return registry


def registry_out(registry: Registry) -> bytes:
    """What `META_REGISTRY` holds: a checksum over the tables and the limits, so that their pages fit the others'."""
    tree = [list(registry.nodes.values()), list(registry.features), sorted(registry.secrets.items())]
    if registry.limits != NO_LIMITS:  # left out otherwise, as by builds that do not know limits
        tree.append(list(registry.limits))
    return seal(crc32(pack(tree)))


def nodes_by_id(nodes: list[Node]) -> Mapping[int, Node]:
    """A read-only map in ascending order of ids."""
    return MappingProxyType({node.node_id: node for node in sorted(nodes)})
