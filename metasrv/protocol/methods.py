"""The method table of `meta.MetaService`: path, kind and message types, for the server and the client.

A unit test compares it with the service descriptor. Pure data.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from google.protobuf.message import Message

from metasrv.protocol.proto import meta_pb2 as pb

SERVICE_NAME = "meta.MetaService"

TOKEN_METADATA_KEY = "auth-token-bin"  # noqa: S105 - a header name
LEADER_METADATA_KEY = "x-databend-meta-leader-grpc-endpoint"
NODE_METADATA_KEY = "x-metasrv-node-grpc-endpoint"
"""Sent with the answer to a handshake: the client address that this node advertises."""
CLUSTER_METADATA_KEY = "x-metasrv-cluster"
"""Sent with the answers to a handshake, a watch and an export: the id of the node's cluster, once it belongs to one."""
READ_METADATA_KEY = "x-metasrv-read"
"""A client that sends `stale` here is answered from local state, without a confirmation by a quorum."""
STALE_READ = "stale"
EXPORT_METADATA_KEY = "x-metasrv-export"
"""A client that sends `archive` here with ExportV1 gets the lines of an archive (docs/contract/grpc.md section g.2), once
a quorum has confirmed that the node has everything acknowledged; with `archive-local` without a confirmation."""
ARCHIVE_EXPORT = "archive"
LOCAL_ARCHIVE_EXPORT = "archive-local"
OUTCOME_METADATA_KEY = "x-metasrv-outcome"
"""Sent with an error that is certain to have changed nothing; its value is `not-done`."""
NOT_DONE = "not-done"


class Kind(Enum):
    """Which side streams."""

    UNARY = "unary"
    SERVER_STREAM = "server-stream"
    BIDIRECTIONAL = "bidirectional"


class Method(NamedTuple):
    name: str
    kind: Kind
    request: type[Message]
    reply: type[Message]
    token: bool
    """Whether a call must carry a token (docs/contract/grpc.md section b.5)."""
    write: bool | None
    """For the latency metrics: a write, a read, or neither."""

    @property
    def path(self) -> str:
        return f"/{SERVICE_NAME}/{self.name}"


HANDSHAKE = Method("Handshake", Kind.BIDIRECTIONAL, pb.HandshakeRequest, pb.HandshakeResponse, False, None)
KV_API = Method("KvApi", Kind.UNARY, pb.RaftRequest, pb.RaftReply, True, True)
KV_READ_V1 = Method("KvReadV1", Kind.SERVER_STREAM, pb.RaftRequest, pb.StreamItem, True, False)
KV_LIST = Method("KvList", Kind.SERVER_STREAM, pb.KvListRequest, pb.StreamItem, True, False)
KV_GET_MANY = Method("KvGetMany", Kind.BIDIRECTIONAL, pb.KvGetManyRequest, pb.StreamItem, True, False)
EXPORT = Method("Export", Kind.SERVER_STREAM, pb.Empty, pb.ExportedChunk, False, None)
EXPORT_V1 = Method("ExportV1", Kind.SERVER_STREAM, pb.ExportRequest, pb.ExportedChunk, False, None)
SNAPSHOT_KEYS_LAYOUT = Method("SnapshotKeysLayout", Kind.SERVER_STREAM, pb.KeysLayoutRequest, pb.KeysCount, False, None)
WATCH = Method("Watch", Kind.SERVER_STREAM, pb.WatchRequest, pb.WatchResponse, False, None)
TRANSACTION = Method("Transaction", Kind.UNARY, pb.TxnRequest, pb.TxnReply, True, True)
KV_TRANSACTION = Method("KvTransaction", Kind.UNARY, pb.KvTransactionRequest, pb.KvTransactionReply, True, True)
MEMBER_LIST = Method("MemberList", Kind.UNARY, pb.MemberListRequest, pb.MemberListReply, True, None)
GET_CLUSTER_STATUS = Method("GetClusterStatus", Kind.UNARY, pb.Empty, pb.ClusterStatus, False, None)
GET_CLIENT_INFO = Method("GetClientInfo", Kind.UNARY, pb.Empty, pb.ClientInfo, False, None)
MIGRATE = Method("Migrate", Kind.UNARY, pb.MigrateRequest, pb.MigrateReply, True, True)

METHODS = (
    HANDSHAKE,
    KV_API,
    KV_READ_V1,
    KV_LIST,
    KV_GET_MANY,
    EXPORT,
    EXPORT_V1,
    SNAPSHOT_KEYS_LAYOUT,
    WATCH,
    TRANSACTION,
    KV_TRANSACTION,
    MEMBER_LIST,
    GET_CLUSTER_STATUS,
    GET_CLIENT_INFO,
    MIGRATE,
)
