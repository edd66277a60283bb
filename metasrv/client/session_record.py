"""The record of a session, and the transactions that move it: renewed, ended, and once for each piece of work.

The record's value names the last piece of work that was executed in the session, by its number. A transaction of the
session is only executed while the record has the sequence number that the session saw last, and writes its own number
there. Hence three answers after a call whose outcome is unknown, from a renewal alone: the number is there, the work was
done; it is not, and never will be, because the renewal has moved the sequence number; there is no record, and the
session is over. Pure; runs anywhere.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from metasrv.client.transaction import Transaction
from metasrv.model import commands as c
from metasrv.protocol.proto import meta_pb2 as pb


class Work(NamedTuple):
    """The number of a piece of work, and which side of its transaction was executed."""

    number: int
    success: bool

    @property
    def mark(self) -> str:
        return f"{self.number}{'+' if self.success else '-'}"


NO_WORK = Work(0, True)


class Finding(Enum):
    """What a renewal found about a piece of work of unknown outcome."""

    THEN = "then"
    OTHERWISE = "otherwise"
    NOT_DONE = "not done"
    NO_SESSION = "no session"


class SessionRecord:
    """The transactions of one session; remembers nothing."""

    def __init__(self, key: str, name: str, ttl_ms: int) -> None:
        self.key = key
        self._name = name
        self._ttl_ms = ttl_ms

    def value(self, work: Work) -> bytes:
        return f"{self._name}\n{work.mark}".encode()

    def opening(self) -> Transaction:
        """Only where there is none, so that a late second execution cannot set back what the record says."""
        opening = Transaction().when_absent(self.key).put(self.key, self.value(NO_WORK), ttl_ms=self._ttl_ms)
        return opening.otherwise().get(self.key)

    # ------------------------------------------------------------------------- work

    def wrapped(self, work: Transaction, number: int, seq: int) -> pb.TxnRequest:
        """The work, only while the record's sequence number is `seq`, and its number with it."""
        request = pb.TxnRequest()
        request.CopyFrom(work.request)
        if request.operations:
            raise ValueError("a session executes transactions of conditions and two sides, without branches")
        moved = request.operations.add()
        moved.predicate.conditions.add(key=self.key, seq=seq, expected=pb.TxnCondition.NE)
        moved.operations.add().get.key = self.key
        request.if_then.append(self._put(Work(number, True)))
        request.else_then.append(self._put(Work(number, False)))
        return request

    def was_moved(self, reply: c.TransactionReply) -> bool:
        """Whether the record had another sequence number, so that nothing was executed."""
        return reply.execution_path == "operation:0"

    # ------------------------------------------------------------------------- renewal

    def renewal(self, last: Work, number: int) -> pb.TxnRequest:
        """The record with a new life, whatever it says of the work that may be under way."""
        request = pb.TxnRequest()
        for work in (Work(number, True), Work(number, False), last):
            branch = request.operations.add()
            branch.predicate.conditions.add(key=self.key, value=self.value(work), expected=pb.TxnCondition.EQ)
            branch.operations.append(self._put(work))
        request.condition.add(key=self.key, seq=0, expected=pb.TxnCondition.EQ)
        return request

    def found(self, reply: c.TransactionReply) -> Finding:
        """What the answer to a renewal says."""
        return {
            "operation:0": Finding.THEN,
            "operation:1": Finding.OTHERWISE,
            "operation:2": Finding.NOT_DONE,
        }.get(reply.execution_path, Finding.NO_SESSION)

    def seq_of(self, reply: c.TransactionReply) -> int:
        """The record's sequence number after an answer; 0 if it is absent."""
        last = reply.responses[-1] if reply.responses else None
        if isinstance(last, c.PutResponse):
            return last.current.seq if last.current is not None else 0
        if isinstance(last, c.GetResponse):
            return last.value.seq if last.value is not None else 0
        return 0

    def ending(self, keys: list[str]) -> Transaction:
        """Delete the record, and with it what lived in the session."""
        ending = Transaction().delete(self.key)
        for key in keys:
            ending.delete(key)
        return ending

    def _put(self, work: Work) -> pb.TxnOp:
        return pb.TxnOp(put=pb.TxnPutRequest(key=self.key, value=self.value(work), ttl_ms=self._ttl_ms))
