"""One node of a real cluster as a foreign program sees it: the generated stub over a plain channel, blocking calls.

Methods that only the leader serves are sent on to where `not leader` points, as every client does; everything else is
answered by the node itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.proto import meta_pb2_grpc

CLIENT_VERSION = 260_205_013_002
"""databend-query's of August 2026."""
OWN_LINE = '["raft_log",{"NodeId":'
"""How the line of an export begins that says which node wrote it."""
PURGED_LINE = '["raft_log",{"Purged":'
"""How the line begins that says where the node's log begins."""
LEADER_HEADER = "x-databend-meta-leader-grpc-endpoint"
TIMEOUT_SECONDS = 10.0
WATCH_SECONDS = 60.0
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Wire:
    """Blocking calls at `address`."""

    def __init__(self, address: str, *, options: Iterable[tuple[str, Any]] = ()) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, options=[*OPTIONS, *options])
        make_stub: Any = meta_pb2_grpc.MetaServiceStub
        self.stub: Any = make_stub(self.channel)
        self._token: tuple[tuple[str, bytes], ...] = ()
        self._leaders: dict[str, Wire] = {}

    def close(self) -> None:
        self.channel.close()
        for leader in self._leaders.values():
            leader.close()

    @property
    def token(self) -> tuple[tuple[str, bytes], ...]:
        """The metadata of an authenticated call."""
        if not self._token:
            self._token = (("auth-token-bin", self.handshake().payload),)
        return self._token

    def handshake(self, version: int = CLIENT_VERSION, username: str = "root", password: str = "xxx") -> Any:
        payload = pb.BasicAuth(username=username, password=password).SerializeToString()
        request = pb.HandshakeRequest(protocol_version=version, payload=payload)
        (reply,) = list(self.stub.Handshake(iter([request]), timeout=TIMEOUT_SECONDS))
        return reply

    # ------------------------------------------------------------------------- writes

    def transaction(self, request: pb.TxnRequest) -> pb.TxnReply:
        reply: pb.TxnReply = self.stub.Transaction(request, metadata=self.token, timeout=TIMEOUT_SECONDS)
        return reply

    def kv_transaction(self, *branches: pb.ConditionalOperation) -> pb.KvTransactionReply:
        request = pb.KvTransactionRequest(branches=branches)
        reply: pb.KvTransactionReply = self.at_leader(
            lambda wire: wire.stub.KvTransaction(request, metadata=wire.token, timeout=TIMEOUT_SECONDS)
        )
        return reply

    def upsert(
        self, key: str, value: Any, seq: Any = "Any", expire_at: int | None = None, ttl_ms: int | None = None
    ) -> tuple[Any, Any]:
        """KvApi: (prev, result) as JSON trees. `value` is bytes, or the name of an operation."""
        operation = value if isinstance(value, str) else {"Update": list(value)}
        meta: dict[str, Any] | None = None
        if expire_at is not None or ttl_ms is not None:
            meta = {"expire_at": expire_at}
            if ttl_ms is not None:
                meta["ttl"] = {"millis": ttl_ms}
        body = {"UpsertKV": {"key": key, "seq": seq, "value": operation, "value_meta": meta}}
        request = pb.RaftRequest(data=json.dumps(body))
        reply = json.loads(self.stub.KvApi(request, metadata=self.token, timeout=TIMEOUT_SECONDS).data)
        assert set(reply) == {"ident", "prev", "result"}
        assert reply["ident"] is None
        return reply["prev"], reply["result"]

    def run(self, *operations: pb.TxnOp) -> list[Any]:
        """The responses of an unconditional transaction."""
        reply = self.transaction(pb.TxnRequest(if_then=operations))
        assert (reply.success, reply.execution_path) == (True, "then")
        return [getattr(response, response.WhichOneof("response")) for response in reply.responses]

    def put(self, key: str, value: bytes = b"v", **fields: Any) -> Any:
        (response,) = self.run(put(key, value, **fields))
        return response

    def delete(self, key: str, **fields: Any) -> Any:
        (response,) = self.run(pb.TxnOp(delete=pb.TxnDeleteRequest(key=key, **fields)))
        return response

    def seq(self) -> int:
        """The number of a write made now."""
        number: int = self.put("sequence/probe").current.seq
        return number

    # ------------------------------------------------------------------------- reads

    def read(self, request: dict[str, Any], metadata: Iterable[tuple[str, str]] = ()) -> list[pb.StreamItem]:
        """KvReadV1."""
        message = pb.RaftRequest(data=json.dumps(request))
        call = self.stub.KvReadV1(message, metadata=(*self.token, *metadata), timeout=TIMEOUT_SECONDS)
        return list(call)

    def get(self, key: str) -> pb.SeqV | None:
        (item,) = self.read({"GetKV": {"key": key}})
        assert item.key == key
        return item.value if item.HasField("value") else None

    def mget(self, *keys: str) -> list[pb.StreamItem]:
        return self.read({"MGetKV": {"keys": list(keys)}})

    def list_prefix(self, prefix: str) -> list[pb.StreamItem]:
        return self.read({"ListKV": {"prefix": prefix}})

    def kv_list(self, prefix: str, limit: int | None = None) -> list[pb.StreamItem]:
        request = pb.KvListRequest(prefix=prefix, limit=limit)
        items: list[pb.StreamItem] = self.at_leader(
            lambda wire: list(wire.stub.KvList(request, metadata=wire.token, timeout=TIMEOUT_SECONDS))
        )
        return items

    def kv_get_many(self, *keys: str) -> list[pb.StreamItem]:
        def ask(wire: Wire) -> list[pb.StreamItem]:
            requests = iter([pb.KvGetManyRequest(key=key) for key in keys])
            return list(wire.stub.KvGetMany(requests, metadata=wire.token, timeout=TIMEOUT_SECONDS))

        items: list[pb.StreamItem] = self.at_leader(ask)
        return items

    # ------------------------------------------------------------------------- streams

    @contextlib.contextmanager
    def watch(self, key: str, key_end: str | None = None, **fields: Any) -> Iterator[Any]:
        """A watch that hears of every later write and of no earlier one; ends with the block."""
        self.get(key)  # a node may lag, and a watch shows what it applies: let it have applied everything
        request = pb.WatchRequest(key=key, key_end=key_end, **fields)
        call = self.stub.Watch(request, timeout=WATCH_SECONDS)
        try:
            call.initial_metadata()
            yield call
        finally:
            call.cancel()

    def export(self, chunk_size: int | None = None) -> list[list[str]]:
        call = self.stub.ExportV1(pb.ExportRequest(chunk_size=chunk_size), timeout=60)
        return [list(chunk.data) for chunk in call]

    def export_lines(self, chunk_size: int | None = None) -> list[str]:
        return [line for chunk in self.export(chunk_size) for line in chunk]

    def stored_keys(self) -> list[str]:
        """Keys that the node holds, expired or not: an export hides nothing."""
        bodies = [json.loads(line)[1] for line in self.export_lines()]
        return [body["GenericKV"]["key"] for body in bodies if "GenericKV" in body]

    # ------------------------------------------------------------------------- leaders

    def at_leader(self, ask: Callable[[Wire], Any]) -> Any:
        """What `ask` returns of the wire to the leader; asked again elsewhere when a node says that it does not lead."""
        wire = self
        for _ in range(20):
            try:
                return ask(wire)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                if error.details() != "not leader":
                    raise
                address = dict(error.trailing_metadata())[LEADER_HEADER]
                if address not in self._leaders:
                    self._leaders[address] = Wire(address)
                wire = self._leaders[address]
        raise AssertionError("no node says that it is the leader")


# ----------------------------------------------------------------------------- messages


def put(key: str, value: bytes = b"v", **fields: Any) -> pb.TxnOp:
    return pb.TxnOp(put=pb.TxnPutRequest(key=key, value=value, **fields))


def get(key: str) -> pb.TxnOp:
    return pb.TxnOp(get=pb.TxnGetRequest(key=key))


def delete(key: str, **fields: Any) -> pb.TxnOp:
    return pb.TxnOp(delete=pb.TxnDeleteRequest(key=key, **fields))


def delete_by_prefix(prefix: str) -> pb.TxnOp:
    return pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix=prefix))


def fetch_increase(key: str, delta: int, **fields: Any) -> pb.TxnOp:
    return pb.TxnOp(fetch_increase_u64=pb.FetchIncreaseU64(key=key, delta=delta, **fields))


def put_sequential(prefix: str, counter: str, value: bytes = b"v", **fields: Any) -> pb.TxnOp:
    return pb.TxnOp(put_sequential=pb.PutSequential(prefix=prefix, sequence_key=counter, value=value, **fields))


def when(key: str, expected: Any = 0, **target: Any) -> pb.TxnCondition:
    """A condition; `target` is one of seq, value and keys_with_prefix, or nothing."""
    return pb.TxnCondition(key=key, expected=expected, **target)


def all_of(*conditions: pb.TxnCondition, trees: Iterable[pb.BooleanExpression] = ()) -> pb.BooleanExpression:
    return pb.BooleanExpression(operator=pb.BooleanExpression.AND, sub_expressions=trees, conditions=conditions)


def any_of(*conditions: pb.TxnCondition, trees: Iterable[pb.BooleanExpression] = ()) -> pb.BooleanExpression:
    return pb.BooleanExpression(operator=pb.BooleanExpression.OR, sub_expressions=trees, conditions=conditions)


def branch(predicate: pb.BooleanExpression | None, *operations: pb.TxnOp) -> pb.ConditionalOperation:
    return pb.ConditionalOperation(predicate=predicate, operations=operations)
