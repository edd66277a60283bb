"""The blocking client: the asyncio client on an event loop in a thread of its own.

    with Client(["127.0.0.1:9191"]) as client:
        client.upsert("key", b"value")

For scripts, command lines and programs of threads: any thread may use it. Inside a running event loop use `AsyncClient`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from metasrv.client import answers
from metasrv.client.asynchronous import ANY, TIMEOUT_MS_DEFAULT, AsyncClient
from metasrv.client.blocking_sessions import Session
from metasrv.client.caller import CallObserver
from metasrv.client.following import PrefixEvent
from metasrv.client.loop_thread import LoopThread
from metasrv.client.sessions import SESSION_PREFIX_DEFAULT, TTL_MS_DEFAULT
from metasrv.client.transaction import Transaction
from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb

Result = TypeVar("Result")


class Client:
    """The blocking form of `AsyncClient`, which documents what each call means and raises."""

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
        self._loop = LoopThread()

        async def make() -> AsyncClient:
            return AsyncClient(
                endpoints,
                username=username,
                password=password,
                timeout_ms=timeout_ms,
                tls_ca_file=tls_ca_file,
                tls_server_name=tls_server_name,
                tls_cert_file=tls_cert_file,
                tls_key_file=tls_key_file,
                cluster_id=cluster_id,
                tracer=tracer,
                observer=observer,
            )

        try:
            self._client = self._loop.run(make())
        except BaseException:
            self._loop.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection and the event loop; the client cannot be used again. Safe to call again."""
        if self._loop.is_closed:
            return
        try:
            self._run(self._client.close())
        finally:
            self._loop.close()

    # ------------------------------------------------------------------------- reads and writes

    def get(self, key: str, *, stale: bool = False) -> SeqV | None:
        return self._run(self._client.get(key, stale=stale))

    def get_many(self, keys: Sequence[str], *, stale: bool = False) -> list[SeqV | None]:
        return self._run(self._client.get_many(keys, stale=stale))

    def list_prefix(self, prefix: str, *, limit: int | None = None, stale: bool = False) -> list[tuple[str, SeqV]]:
        return self._run(self._client.list_prefix(prefix, limit=limit, stale=stale))

    def upsert(
        self,
        key: str,
        value: bytes,
        *,
        match: c.MatchSeq = ANY,
        ttl_ms: int | None = None,
        expire_at_ms: int | None = None,
    ) -> c.UpsertReply:
        return self._run(self._client.upsert(key, value, match=match, ttl_ms=ttl_ms, expire_at_ms=expire_at_ms))

    def delete(self, key: str, *, match: c.MatchSeq = ANY) -> c.UpsertReply:
        return self._run(self._client.delete(key, match=match))

    def transaction(
        self, transaction: Transaction | pb.TxnRequest, *, timeout_ms: int | None = None
    ) -> c.TransactionReply:
        return self._run(self._client.transaction(transaction, timeout_ms=timeout_ms))

    def branch_transaction(self, request: pb.KvTransactionRequest) -> c.BranchTransactionReply:
        return self._run(self._client.branch_transaction(request))

    # ------------------------------------------------------------------------- streams

    def watch(
        self,
        key: str,
        key_end: str | None = None,
        *,
        filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
        initial_flush: bool = False,
        require_leader: bool = False,
    ) -> Iterator[answers.WatchEvent]:
        return self._loop.iterate(
            self._client.watch(
                key, key_end, filter_type=filter_type, initial_flush=initial_flush, require_leader=require_leader
            )
        )

    def watch_prefix(self, prefix: str) -> Iterator[PrefixEvent]:
        return self._loop.iterate(self._client.watch_prefix(prefix))

    def watch_key(self, key: str) -> Iterator[PrefixEvent]:
        return self._loop.iterate(self._client.watch_key(key))

    def session(
        self,
        *,
        ttl_ms: int = TTL_MS_DEFAULT,
        margin_ms: int | None = None,
        prefix: str = SESSION_PREFIX_DEFAULT,
        name: str = "",
    ) -> Session:
        """A session, which `with` opens; it is kept alive between calls, too."""
        inner = self._client.session(ttl_ms=ttl_ms, margin_ms=margin_ms, prefix=prefix, name=name)
        return Session(self._loop, inner)

    def export(self, chunk_size: int = 32) -> Iterator[str]:
        for lines in self._loop.iterate(self._client.export_messages(chunk_size)):
            yield from lines

    def archive(self, *, local: bool = False, secrets: bool = False, chunk_size: int = 1024) -> Iterator[Sequence[str]]:
        return self._loop.iterate(self._client.archive_messages(local=local, secrets=secrets, chunk_size=chunk_size))

    def keys_layout(self, depth: int | None = None) -> Iterator[tuple[str, int]]:
        return self._loop.iterate(self._client.keys_layout(depth))

    # ------------------------------------------------------------------------- cluster

    def member_list(self) -> list[str]:
        return self._run(self._client.member_list())

    def cluster_status(self) -> pb.ClusterStatus:
        return self._run(self._client.cluster_status())

    def client_info(self) -> answers.ClientInfo:
        return self._run(self._client.client_info())

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run(coroutine)
