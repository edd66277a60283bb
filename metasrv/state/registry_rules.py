"""The rules of the small tables: registering nodes, feature flags, named secrets.

Each changes its table inside the entry's open transaction and gives the effects a new `Registry`. Runs on the event
loop.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from metasrv.model import commands as c
from metasrv.state.effects import EntryEffects
from metasrv.state.format import seal
from metasrv.state.registry import nodes_by_id
from metasrv.state.validate import validate_key, validate_numbers, validate_value

# ----------------------------------------------------------------------------- nodes


def validate_add_node(command: c.AddNode) -> None:
    node = command.node
    validate_numbers(node.node_id, node.endpoint.port)
    for text in (node.endpoint.addr, node.grpc_api_addr, node.grpc_api_advertise_address or ""):
        validate_key(text, "the node's address")


def apply_add_node(effects: EntryEffects, command: c.AddNode) -> c.NodeReply:
    """Register the node; a record that is there stays unless `overriding`."""
    node, overriding = command
    prev = effects.registry.nodes.get(node.node_id)
    if prev is not None and not overriding:
        return c.NodeReply(prev, prev)
    effects.store.execute("INSERT OR REPLACE INTO nodes VALUES(?, ?)", (str(node.node_id), seal(node)))
    others = [known for known in effects.registry.nodes.values() if known.node_id != node.node_id]
    effects.registry = replace(effects.registry, nodes=nodes_by_id([*others, node]))
    return c.NodeReply(prev, node)


def validate_remove_node(command: c.RemoveNode) -> None:
    validate_numbers(command.node_id)


def apply_remove_node(effects: EntryEffects, command: c.RemoveNode) -> c.NodeReply:
    prev = effects.registry.nodes.get(command.node_id)
    if prev is None:
        return c.NodeReply(None, None)
    effects.store.execute("DELETE FROM nodes WHERE node_id = ?", (str(command.node_id),))
    others = [node for node in effects.registry.nodes.values() if node.node_id != command.node_id]
    effects.registry = replace(effects.registry, nodes=nodes_by_id(others))
    return c.NodeReply(prev, None)


# ----------------------------------------------------------------------------- features


def validate_set_feature(command: c.SetFeature) -> None:
    validate_key(command.feature, "the feature name")


def apply_set_feature(effects: EntryEffects, command: c.SetFeature) -> c.FeatureReply:
    """Turn the feature on or off; whether the name is known is the admin API's business."""
    registry = effects.registry
    if command.enable:
        effects.store.execute("INSERT OR IGNORE INTO features VALUES(?)", (command.feature,))
        features = tuple(sorted({*registry.features, command.feature}))
    else:
        effects.store.execute("DELETE FROM features WHERE name = ?", (command.feature,))
        features = tuple(name for name in registry.features if name != command.feature)
    effects.registry = replace(registry, features=features)
    return c.FeatureReply(features)


# ----------------------------------------------------------------------------- secrets


def validate_set_cluster_secret(command: c.SetClusterSecret) -> None:
    validate_key(command.name, "the secret's name")
    validate_value(command.secret)


def apply_set_cluster_secret(effects: EntryEffects, command: c.SetClusterSecret) -> c.SecretReply:
    """Store the secret unless one has that name; the reply is the one that is stored."""
    registry = effects.registry
    present = registry.secrets.get(command.name)
    if present is not None:
        return c.SecretReply(present)
    effects.store.execute("INSERT INTO secrets VALUES(?, ?)", (command.name, seal(command.secret)))
    secrets = MappingProxyType({**registry.secrets, command.name: command.secret})
    effects.registry = replace(registry, secrets=secrets)
    return c.SecretReply(command.secret)


def validate_replace_secret(command: c.ReplaceSecret) -> None:
    validate_key(command.name, "the secret's name")
    for secret in (command.expected, command.secret):
        validate_value(secret or b"")


def apply_replace_secret(effects: EntryEffects, command: c.ReplaceSecret) -> c.ReplaceSecretReply:
    """Store, replace or remove the secret if it is the expected one; two that change it at once cannot both succeed."""
    registry = effects.registry
    name, expected, secret = command
    present = registry.secrets.get(name)
    if present != expected:
        return c.ReplaceSecretReply(False, present)
    if secret == present:
        return c.ReplaceSecretReply(True, present)
    secrets = {other: value for other, value in registry.secrets.items() if other != name}
    if secret is None:
        effects.store.execute("DELETE FROM secrets WHERE name = ?", (name,))
    else:
        effects.store.execute("INSERT OR REPLACE INTO secrets VALUES(?, ?)", (name, seal(secret)))
        secrets[name] = secret
    effects.registry = replace(registry, secrets=MappingProxyType(secrets))
    return c.ReplaceSecretReply(True, secret)
