"""What a view of the state says beside its records, as a tree: positions, registry, membership. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from metasrv.gateway.messages import Message, checked
from metasrv.gateway.statuses import LOG_ID, MEMBERSHIP, NODES
from metasrv.grpc_api.context import WholeView
from metasrv.model.types import LogId, Membership, Node
from metasrv.model.wire import byte_string, string, unsigned


class ViewHead(NamedTuple):
    """See `state.reader.StateReader`."""

    last_applied: LogId
    last_seq: int
    nodes: Mapping[int, Node]
    features: tuple[str, ...]
    secrets: Mapping[str, bytes]
    membership_log_id: LogId
    membership: Membership
    cluster_id: str | None


def head_out(view: WholeView) -> Message:
    def out(shape: Any, value: Any) -> Any:
        return value if shape.write is None else shape.write(value)

    return (
        out(LOG_ID, view.last_applied),
        view.last_seq,
        out(NODES, view.nodes),
        tuple(view.features),
        dict(view.secrets),
        out(LOG_ID, view.membership_log_id),
        out(MEMBERSHIP, view.membership),
        view.cluster_id,
    )


def head_in(tree: Any) -> ViewHead:
    """Raises CodecError."""

    def build() -> ViewHead:
        applied, seq, nodes, features, secrets, stands_at, membership, cluster_id = tree
        return ViewHead(
            LOG_ID.read(applied),
            unsigned(seq),
            NODES.read(nodes),
            tuple(map(string, features)),
            {string(name): byte_string(secret) for name, secret in secrets.items()},
            LOG_ID.read(stands_at),
            MEMBERSHIP.read(membership),
            None if cluster_id is None else string(cluster_id),
        )

    return checked(build)
