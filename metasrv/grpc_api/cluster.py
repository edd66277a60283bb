"""The methods that look at the node: MemberList, GetClusterStatus, GetClientInfo (docs/contract/grpc.md section a.4).

Everything comes from one immutable status (invariant 8); nothing is asked of other nodes. Runs on the event loop.
"""

from __future__ import annotations

from metasrv.grpc_api.calls import Call, client_address
from metasrv.grpc_api.context import GrpcContext
from metasrv.model.types import DATA_VERSION, Node, RaftLogStatus, RaftStatus
from metasrv.protocol.proto import meta_pb2 as pb


class ClusterMethods:
    """Bodies of the methods about the node and the cluster."""

    def __init__(self, context: GrpcContext) -> None:
        self._context = context

    async def member_list(self, request: pb.MemberListRequest, call: Call) -> pb.MemberListReply:
        """MemberList: client addresses by node id, learners included; "" for a node without one."""
        del request, call
        return pb.MemberListReply(data=client_addresses(await self._context.fresh_status()))

    async def get_cluster_status(self, request: pb.Empty, call: Call) -> pb.ClusterStatus:
        """GetClusterStatus: what this node knows."""
        del request, call
        return cluster_status(await self._context.fresh_status(), self._context.binary_version)

    async def get_client_info(self, request: pb.Empty, call: Call) -> pb.ClientInfo:
        """GetClientInfo: the caller's address and this node's clock."""
        del request
        return pb.ClientInfo(client_addr=client_address(call.peer()), server_time=self._context.clock.wall_ms())


def client_addresses(status: RaftStatus) -> list[str]:
    """One address a member, in ascending order of ids."""
    members = sorted([*status.voter_nodes(), *status.learner_nodes()])
    return [member.grpc_api_advertise_address or "" for member in members]


def cluster_status(status: RaftStatus, binary_version: str) -> pb.ClusterStatus:
    """The status message; its texts have the forms of docs/contract/grpc.md section a.4."""
    own = status.nodes.get(status.node_id)
    member = status.membership.member(status.node_id)
    endpoint = own.endpoint if own is not None else member.endpoint if member is not None else ""
    return pb.ClusterStatus(
        id=status.node_id,
        binary_version=binary_version,
        data_version=DATA_VERSION,
        endpoint=str(endpoint),
        raft_log_size=status.raft_log.wal_total_size,
        state=str(status.state),
        is_leader=status.is_leader,
        current_term=status.term,
        last_log_index=status.last_log_id.index,
        last_applied=str(status.last_applied),
        snapshot_last_log_id=_text_or_none(status.snapshot.last_log_id),
        purged=_text_or_none(status.purged),
        leader=None if status.leader is None else node_text(status.leader),
        replication=_replication(status),
        voters=[node_text(node) for node in status.voter_nodes()],
        non_voters=[node_text(node) for node in status.learner_nodes()],
        last_seq=status.last_seq,
        snapshot_key_count=status.snapshot.key_count + status.snapshot.expire_count,
        raft_log_status=_raft_log_status(status.raft_log),
        learners=_learners(status),
        data_size_bytes=status.data_size_bytes,
        quota_bytes=status.limits.quota_bytes,
        read_only=status.limits.read_only,
        read_only_since_ms=status.limits.read_only_since_ms,
        drained=status.drained,
    )


def node_text(node: Node) -> str:
    """`id=1 raft=localhost:28103 grpc=127.0.0.1:9191`."""
    return f"id={node.name} raft={node.endpoint} grpc={node.grpc_api_advertise_address or ''}"


def _text_or_none(value: object | None) -> str | None:
    return None if value is None else str(value)


def _replication(status: RaftStatus) -> dict[int, str]:
    positions = status.replication or {}
    return {node_id: str(log_id) for node_id, log_id in positions.items() if log_id is not None}


def _learners(status: RaftStatus) -> list[pb.LearnerStatus]:
    """All learners but this node itself."""
    return [
        pb.LearnerStatus(id=peer.node_id, learner_for_ms=peer.learner_for_ms, caught_up=peer.caught_up)
        for peer in status.peers
        if peer.learner_for_ms is not None
    ]


def _raft_log_status(log: RaftLogStatus) -> pb.RaftLogStatus:
    return pb.RaftLogStatus(
        cache_items=log.cache_items,
        cache_used_size=log.cache_used_size,
        wal_total_size=log.wal_total_size,
        wal_open_chunk_size=log.wal_open_chunk_size,
        wal_offset=log.wal_offset,
        wal_closed_chunk_count=log.wal_closed_chunk_count,
        wal_closed_chunk_total_size=log.wal_closed_chunk_total_size,
        wal_closed_chunk_sizes=dict(log.wal_closed_chunk_sizes),
    )
