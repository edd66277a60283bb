"""The asyncio client: typed calls that follow the leader and never repeat a write that may have been done.

    async with AsyncClient(["127.0.0.1:9191"]) as client:
        await client.upsert("key", b"value")

Every call has a deadline, except the streams of `watch`, `watch_prefix`, `watch_key`, `export` and `keys_layout`.
NotDoneError means certainly not executed; UnknownOutcomeError means perhaps executed, and only the caller can decide what
to do. Runs on the caller's event loop; leaving the context manager leaves no task behind.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from metasrv.client import answers
from metasrv.client.caller import Caller, CallObserver
from metasrv.client.connection import Credentials
from metasrv.client.following import PrefixEvent, end_of_prefix, follow
from metasrv.client.sessions import SESSION_PREFIX_DEFAULT, TTL_MS_DEFAULT, AsyncSession
from metasrv.client.transaction import Transaction, upsert_request
from metasrv.model import commands as c
from metasrv.model.errors import NotDoneError
from metasrv.model.types import SeqV
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

TIMEOUT_MS_DEFAULT = 5_000
ANY = c.MatchSeq(c.MatchKind.ANY)
_STALE = ((m.READ_METADATA_KEY, m.STALE_READ),)


class AsyncClient:
    """A client of a cluster. All times are milliseconds; keys are text, values bytes."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str = "root",
        password: str = "",
        timeout_ms: int = TIMEOUT_MS_DEFAULT,
        tls_ca_file: str | None = None,
        tls_server_name: str | None = None,
        tls_cert_file: str | None = None,
        tls_key_file: str | None = None,
        cluster_id: str | None = None,
        tracer: Any = None,
        observer: CallObserver | None = None,
    ) -> None:
        """`endpoints` are `host:port` of some nodes; the client learns the others. `timeout_ms` bounds each call.

        `cluster_id` is the cluster to talk to, by default the first that a node names; every call may raise
        OtherClusterError, when its endpoint belongs to another one. With a `tracer`, an `opentelemetry.trace.Tracer`,
        each read and write has a span, and the nodes put theirs under it; streams without an end have none. `observer`
        hears how each call ends, and of retries: `metasrv.client.observing.ClientMetrics()` counts them for
        prometheus-client.
        """
        credentials = Credentials(username, password, tls_ca_file, tls_server_name, tls_cert_file, tls_key_file)
        self._caller = Caller(endpoints, credentials, timeout_ms, cluster_id, tracer, observer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and close every connection; safe to call again."""
        await self._caller.close()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every endpoint known by now."""
        return self._caller.endpoints.all

    @property
    def cluster_id(self) -> str | None:
        """The cluster that this client belongs to; None until a node has named one, and with servers that name none."""
        return self._caller.cluster.cluster_id

    # ------------------------------------------------------------------------- reads

    async def get(self, key: str, *, stale: bool = False) -> SeqV | None:
        """One record. `stale` reads what the asked node has, without a confirmation by a quorum."""
        return (await self.get_many([key], stale=stale))[0]

    async def get_many(self, keys: Sequence[str], *, stale: bool = False) -> list[SeqV | None]:
        """One item per key, in order, all from one snapshot."""
        items = await self._read({"MGetKV": {"keys": list(keys)}}, stale)
        if len(items) != len(keys):
            raise NotDoneError(f"the server answered {len(items)} of {len(keys)} keys")
        return [record for _, record in items]

    async def list_prefix(self, prefix: str, *, limit: int | None = None, stale: bool = False) -> list[tuple[str, SeqV]]:
        """Records under a prefix in key order, from one snapshot; the call is cancelled at `limit`."""
        if limit is not None and limit <= 0:
            return []
        items = await self._read({"ListKV": {"prefix": prefix}}, stale, limit)
        return [(key, record) for key, record in items if record is not None]

    async def _read(
        self, request: dict[str, object], stale: bool, limit: int | None = None
    ) -> list[tuple[str, SeqV | None]]:
        message = pb.RaftRequest(data=json.dumps(request, separators=(",", ":")))
        metadata = _STALE if stale else ()
        found = await self._caller.collect(m.KV_READ_V1, message, metadata, limit)
        return [answers.item_of(item) for item in found]

    # ------------------------------------------------------------------------- writes

    async def upsert(
        self,
        key: str,
        value: bytes,
        *,
        match: c.MatchSeq = ANY,
        ttl_ms: int | None = None,
        expire_at_ms: int | None = None,
    ) -> c.UpsertReply:
        """Write when the sequence number matches; `result` equals `prev` when it did not."""
        reply = await self._transaction(upsert_request(key, match, value, ttl_ms, expire_at_ms))
        return answers.upsert_reply_of(reply)

    async def delete(self, key: str, *, match: c.MatchSeq = ANY) -> c.UpsertReply:
        """Delete when the sequence number matches."""
        reply = await self._transaction(upsert_request(key, match, None, None, None))
        return answers.upsert_reply_of(reply)

    async def transaction(
        self, transaction: Transaction | pb.TxnRequest, *, timeout_ms: int | None = None
    ) -> c.TransactionReply:
        """Execute a transaction, all of it or nothing; `timeout_ms` instead of the client's bounds this call."""
        request = transaction.request if isinstance(transaction, Transaction) else transaction
        seconds = None if timeout_ms is None else timeout_ms / 1000
        reply: pb.TxnReply = await self._caller.unary(m.TRANSACTION, request, seconds)
        return answers.transaction_reply_of(reply)

    async def branch_transaction(self, request: pb.KvTransactionRequest) -> c.BranchTransactionReply:
        """Execute the first branch whose predicate holds."""
        reply = await self._caller.unary(m.KV_TRANSACTION, request)
        return answers.branch_transaction_reply_of(reply)

    async def migrate(self, request: pb.MigrateRequest) -> pb.MigrateReply:
        """Take a step of moving another cluster's records into this one (docs/contract/grpc.md section g.3)."""
        reply: pb.MigrateReply = await self._caller.unary(m.MIGRATE, request)
        return reply

    async def _transaction(self, request: pb.TxnRequest) -> pb.TxnReply:
        reply: pb.TxnReply = await self._caller.unary(m.TRANSACTION, request)
        return reply

    # ------------------------------------------------------------------------- streams

    async def watch(
        self,
        key: str,
        key_end: str | None = None,
        *,
        filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
        initial_flush: bool = False,
        require_leader: bool = False,
    ) -> AsyncGenerator[answers.WatchEvent, None]:
        """Changes of one key, or of [key, key_end), until the caller stops reading.

        Raises NotDoneError when the stream ends by itself: read the keys again and watch anew; `watch_prefix` does that
        by itself. With `require_leader` the node first makes sure that it has what was acknowledged before, and shows
        every few seconds that it still hears its leader; a watch whose node does not is ended.
        """
        request = pb.WatchRequest(key=key, key_end=key_end, filter_type=filter_type, initial_flush=initial_flush)
        async with aclosing(self._caller.stream(m.WATCH, request, keep_level=require_leader)) as stream:
            async for message in stream:
                yield answers.watch_event_of(message)
        raise NotDoneError("the server ended the watch; read the keys again and watch anew")

    def watch_prefix(self, prefix: str) -> AsyncGenerator[PrefixEvent, None]:
        """Every key's value under `prefix`, then every change, for as long as the caller reads.

        Outlives the loss of nodes and connections: it then reads the prefix again and yields what differs from what it
        yielded before, deletes included, and a `SYNCED` event. Such a reading folds the values that a key had in between
        into the last one; the last one itself, or the delete, is never left out. Raises NotDoneError when no node answers
        the first reading within the client's timeout, later only when the client is closed or reaches another cluster.
        """
        return follow(self, prefix, end_of_prefix(prefix))

    def watch_key(self, key: str) -> AsyncGenerator[PrefixEvent, None]:
        """The same for one key."""
        return follow(self, key, None)

    def session(
        self,
        *,
        ttl_ms: int = TTL_MS_DEFAULT,
        margin_ms: int | None = None,
        prefix: str = SESSION_PREFIX_DEFAULT,
        name: str = "",
    ) -> AsyncSession:
        """A session, which `async with` opens: what the recipes stand on. `AsyncSession` has the parameters."""
        return AsyncSession(self, ttl_ms=ttl_ms, margin_ms=margin_ms, prefix=prefix, name=name)

    async def export(self, chunk_size: int = 32) -> AsyncGenerator[str, None]:
        """The lines of a backup, from the node asked."""
        async with aclosing(self.export_messages(chunk_size)) as messages:
            async for lines in messages:
                for line in lines:
                    yield line

    async def export_messages(self, chunk_size: int = 32) -> AsyncGenerator[Sequence[str], None]:
        """The same in lists of `chunk_size` lines, which is faster for a large backup."""
        request = pb.ExportRequest(chunk_size=chunk_size)
        async with aclosing(self._caller.stream(m.EXPORT_V1, request)) as stream:
            async for message in stream:
                yield message.data

    async def archive_messages(
        self, *, local: bool = False, secrets: bool = False, chunk_size: int = 1024
    ) -> AsyncGenerator[Sequence[str], None]:
        """The lines of an archive without its last one, from the node asked, in lists of at most `chunk_size`.

        The first says what it is. A quorum has confirmed that the node had everything acknowledged, unless `local`.
        With `secrets` it holds the key of tokens and the users, if the caller is root and the cluster has a password; the
        first line says whether it does. A server that does not know archives sends the lines of an export.
        """
        request = pb.ExportRequest(chunk_size=chunk_size)
        metadata: tuple[tuple[str, str], ...] = (
            (m.EXPORT_METADATA_KEY, m.LOCAL_ARCHIVE_EXPORT if local else m.ARCHIVE_EXPORT),
        )
        if secrets:
            metadata += ((m.SECRETS_METADATA_KEY, m.INCLUDE_SECRETS),)
        async with aclosing(self._caller.stream(m.EXPORT_V1, request, metadata)) as stream:
            async for message in stream:
                yield message.data

    async def keys_layout(self, depth: int | None = None) -> AsyncGenerator[tuple[str, int], None]:
        """(directory, key count) in the asked node's newest snapshot, children before parents, the total under "" last.

        Yields nothing if the node has no snapshot.
        """
        request = pb.KeysLayoutRequest(depth=depth)
        async with aclosing(self._caller.stream(m.SNAPSHOT_KEYS_LAYOUT, request)) as stream:
            async for message in stream:
                yield message.prefix, message.count

    # ------------------------------------------------------------------------- cluster

    async def member_list(self) -> list[str]:
        """Client addresses by node id; "" for a node that advertises none."""
        reply: pb.MemberListReply = await self._caller.unary(m.MEMBER_LIST, pb.MemberListRequest())
        self._caller.endpoints.replace(list(reply.data))
        return list(reply.data)

    async def cluster_status(self) -> pb.ClusterStatus:
        """What the asked node knows about itself and the cluster."""
        reply: pb.ClusterStatus = await self._caller.unary(m.GET_CLUSTER_STATUS, pb.Empty())
        return reply

    async def client_info(self) -> answers.ClientInfo:
        reply: pb.ClientInfo = await self._caller.unary(m.GET_CLIENT_INFO, pb.Empty())
        server_time = reply.server_time if reply.HasField("server_time") else None
        return answers.ClientInfo(reply.client_addr, server_time)
