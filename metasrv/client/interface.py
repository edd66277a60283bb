"""What sessions and recipes ask of a client. `AsyncClient` has it; so has whatever stands in for it in a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from metasrv.client.answers import WatchEvent
from metasrv.client.transaction import Transaction
from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb


class KeyValueClient(Protocol):
    """The methods of `AsyncClient` of the same names; it documents them."""

    async def get(self, key: str) -> SeqV | None: ...

    async def get_many(self, keys: Sequence[str]) -> list[SeqV | None]: ...

    async def list_prefix(self, prefix: str, *, limit: int | None = None) -> list[tuple[str, SeqV]]: ...

    async def transaction(
        self, transaction: Transaction | pb.TxnRequest, *, timeout_ms: int | None = None
    ) -> c.TransactionReply: ...

    def watch(
        self,
        key: str,
        key_end: str | None = None,
        *,
        filter_type: pb.WatchRequest.FilterType = pb.WatchRequest.ALL,
        initial_flush: bool = False,
        require_leader: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]: ...
