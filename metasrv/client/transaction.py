"""Builds transactions: conditions, operations for when they hold, operations for when they do not.

    transaction = Transaction().when_seq("a", "==", 3).put("a", b"new").otherwise().get("a")

The result is a protobuf request. Knows nothing of connections. Pure; runs anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from metasrv.model import commands as c
from metasrv.protocol.proto import meta_pb2 as pb

_COMPARISONS = {
    "==": pb.TxnCondition.EQ,
    ">": pb.TxnCondition.GT,
    ">=": pb.TxnCondition.GE,
    "<": pb.TxnCondition.LT,
    "<=": pb.TxnCondition.LE,
    "!=": pb.TxnCondition.NE,
}


class FencingToken(NamedTuple):
    """What makes a holder known: the key that it holds, and the sequence number that the key got when it took hold.

    Numbers grow from holder to holder. `Transaction().fenced_by(token)` has the cluster refuse a write once another one
    holds the key. A store outside of the cluster does the same if it keeps the largest `seq` that it has seen, and
    refuses writes with a smaller one.
    """

    key: str
    seq: int


class Transaction:
    """A builder; every method returns the transaction itself. Operations go to the `then` side until `otherwise`."""

    def __init__(self) -> None:
        self._request = pb.TxnRequest()
        self._operations = self._request.if_then

    @property
    def request(self) -> pb.TxnRequest:
        """The message that is sent."""
        return self._request

    # ------------------------------------------------------------------------- conditions

    def when_seq(self, key: str, comparison: str, seq: int) -> Self:
        """The record's sequence number, 0 when absent, compares with `seq` as given."""
        return self._when(key, comparison, seq=seq)

    def when_absent(self, key: str) -> Self:
        return self.when_seq(key, "==", 0)

    def when_present(self, key: str) -> Self:
        return self.when_seq(key, ">", 0)

    def fenced_by(self, token: FencingToken) -> Self:
        """The token's holder still holds what it names: a lock, an office, a queue's item, a barrier's round."""
        return self.when_seq(token.key, "==", token.seq)

    def when_value(self, key: str, comparison: str, value: bytes) -> Self:
        """The value compares with `value` byte by byte; false for an absent key."""
        return self._when(key, comparison, value=value)

    def when_count(self, prefix: str, comparison: str, count: int) -> Self:
        """The number of keys that start with `prefix` compares with `count`."""
        return self._when(prefix, comparison, keys_with_prefix=count)

    def _when(self, key: str, comparison: str, **target: Any) -> Self:
        expected = _COMPARISONS.get(comparison)
        if expected is None:
            raise ValueError(f"{comparison!r} is none of {', '.join(_COMPARISONS)}")
        self._request.condition.append(pb.TxnCondition(key=key, expected=expected, **target))
        return self

    # ------------------------------------------------------------------------- operations

    def otherwise(self) -> Self:
        """Operations from here on run when a condition does not hold."""
        self._operations = self._request.else_then
        return self

    def get(self, key: str) -> Self:
        self._operations.append(pb.TxnOp(get=pb.TxnGetRequest(key=key)))
        return self

    def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl_ms: int | None = None,
        expire_at_ms: int | None = None,
        match_seq: int | None = None,
    ) -> Self:
        """Write a value; with `match_seq` only over exactly that record (0: only when absent)."""
        put = pb.TxnPutRequest(key=key, value=value, ttl_ms=ttl_ms, expire_at=expire_at_ms, match_seq=match_seq)
        self._operations.append(pb.TxnOp(put=put))
        return self

    def delete(self, key: str, *, match_seq: int | None = None) -> Self:
        self._operations.append(pb.TxnOp(delete=pb.TxnDeleteRequest(key=key, match_seq=match_seq)))
        return self

    def delete_by_prefix(self, prefix: str) -> Self:
        self._operations.append(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix=prefix)))
        return self

    def fetch_increase(self, key: str, delta: int, *, match_seq: int | None = None, floor: int = 0) -> Self:
        """Add to a counter, raised to `floor` first."""
        increase = pb.FetchIncreaseU64(key=key, delta=delta, match_seq=match_seq, max_value=floor)
        self._operations.append(pb.TxnOp(fetch_increase_u64=increase))
        return self

    def put_sequential(self, prefix: str, sequence_key: str, value: bytes, *, ttl_ms: int | None = None) -> Self:
        """Write under `prefix` and the next number of the counter `sequence_key`."""
        put = pb.PutSequential(prefix=prefix, sequence_key=sequence_key, value=value, ttl_ms=ttl_ms)
        self._operations.append(pb.TxnOp(put_sequential=put))
        return self


def upsert_request(
    key: str, match: c.MatchSeq, value: bytes | None, ttl_ms: int | None, expire_at_ms: int | None
) -> pb.TxnRequest:
    """An upsert, or a delete when `value` is None, as the transaction of docs/contract/grpc.md section c.1."""
    transaction = Transaction()
    if match.kind is c.MatchKind.EXACT:
        transaction.when_seq(key, "==", match.seq)
    elif match.kind is c.MatchKind.GREATER_EQUAL:
        transaction.when_seq(key, ">=", match.seq)
    if value is None:
        transaction.delete(key)
    else:
        transaction.put(key, value, ttl_ms=ttl_ms, expire_at_ms=expire_at_ms)
    if match.kind is not c.MatchKind.ANY:
        transaction.otherwise().get(key)
    return transaction.request
