"""The small replicated tables: registered nodes, feature flags, named secrets.

They are few, so the machine keeps them in memory; a `Registry` is immutable and is replaced when an entry that
changed it commits. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from metasrv.model import commands as c
from metasrv.model.codec import node_from_tree
from metasrv.model.types import Node
from metasrv.model.wire import byte_string
from metasrv.state.format import seal, unseal
from metasrv.state.store import Store

KNOWN_FEATURES = ("dummy", "dummy_feature2")
"""Feature names the admin API accepts; the log may hold others, which a newer version put there."""


@dataclass(frozen=True, slots=True)
class Registry:
    """Nodes by id ascending, sorted names of the features that are on, secrets by name."""

    nodes: Mapping[int, Node] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict)


RegistryCommand = c.AddNode | c.RemoveNode | c.SetFeature | c.SetClusterSecret
RegistryReply = c.NodeReply | c.FeatureReply | c.SecretReply


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
    return Registry(_by_id(nodes), tuple(features), MappingProxyType(secrets))


def apply_registry_command(store: Store, registry: Registry, command: RegistryCommand) -> tuple[Registry, RegistryReply]:
    """Change the tables inside the open transaction; returns the new registry and the reply."""
    if isinstance(command, c.AddNode):
        return _add_node(store, registry, command)
    if isinstance(command, c.RemoveNode):
        prev = registry.nodes.get(command.node_id)
        if prev is None:
            return registry, c.NodeReply(None, None)
        store.execute("DELETE FROM nodes WHERE node_id = ?", (str(command.node_id),))
        others = [node for node in registry.nodes.values() if node.node_id != command.node_id]
        return replace(registry, nodes=_by_id(others)), c.NodeReply(prev, None)
    if isinstance(command, c.SetFeature):
        if command.enable:
            store.execute("INSERT OR IGNORE INTO features VALUES(?)", (command.feature,))
            features = tuple(sorted({*registry.features, command.feature}))
        else:
            store.execute("DELETE FROM features WHERE name = ?", (command.feature,))
            features = tuple(name for name in registry.features if name != command.feature)
        return replace(registry, features=features), c.FeatureReply(features)
    present = registry.secrets.get(command.name)
    if present is not None:
        return registry, c.SecretReply(present)
    store.execute("INSERT INTO secrets VALUES(?, ?)", (command.name, seal(command.secret)))
    secrets = MappingProxyType({**registry.secrets, command.name: command.secret})
    return replace(registry, secrets=secrets), c.SecretReply(command.secret)


def _add_node(store: Store, registry: Registry, command: c.AddNode) -> tuple[Registry, c.NodeReply]:
    node = command.node
    prev = registry.nodes.get(node.node_id)
    if prev is not None and not command.overriding:
        return registry, c.NodeReply(prev, prev)
    store.execute("INSERT OR REPLACE INTO nodes VALUES(?, ?)", (str(node.node_id), seal(node)))
    others = [known for known in registry.nodes.values() if known.node_id != node.node_id]
    return replace(registry, nodes=_by_id([*others, node])), c.NodeReply(prev, node)


def _by_id(nodes: list[Node]) -> Mapping[int, Node]:
    return MappingProxyType({node.node_id: node for node in sorted(nodes)})
