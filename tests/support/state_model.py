"""The state machine of docs/contract/grpc.md section d as a plain dictionary, written from the page alone.

The reference that `test_state_model.py` compares the product with. Slow and obvious on purpose; imports nothing
of `metasrv.state`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from metasrv.model import commands as c
from metasrv.model.types import KVMeta, SeqV

U64_MAX = 2**64 - 1
Event = tuple[str, SeqV | None, SeqV | None]


def expire_ms(expire_at: int) -> int:
    return expire_at if expire_at > 100_000_000_000 else expire_at * 1000


def expiry_of(record: SeqV) -> int | None:
    """When the record expires, in milliseconds; None when never."""
    return None if record.meta is None or record.meta.expire_at is None else expire_ms(record.meta.expire_at)


def writes(command: c.Command) -> bool:
    """Whether any part of it, taken or not, would change a record."""
    if isinstance(command, c.Upsert):
        return True
    assert isinstance(command, c.Transaction | c.BranchTransaction)
    groups = [branch.operations for branch in command.branches]
    if isinstance(command, c.Transaction):
        groups += [command.if_then, command.else_then]
    return any(not isinstance(operation, c.Get) for group in groups for operation in group)


@dataclass
class Model:
    """Records, counter and log time; `events` collects what a watcher of everything must hear."""

    records: dict[str, SeqV] = field(default_factory=dict)
    seq: int = 0
    time_ms: int = 0
    events: list[Event] = field(default_factory=list)
    read_only: str | None = None
    read_only_since_ms: int = 0
    quota_bytes: int = 0
    refused: int = 0

    def apply(self, time_ms: int, commands: tuple[c.Command, ...]) -> list[c.Reply]:
        self.time_ms = max(self.time_ms, time_ms)
        replies = []
        for command in commands:
            self.sweep()
            replies.append(self.limited(command))
        return replies

    def limited(self, command: c.Command) -> c.Reply:
        """The command, unless the cluster's limits keep it out."""
        if isinstance(command, c.SetReadOnly):
            if command.read_only is None or self.read_only is None:
                self.read_only_since_ms = 0 if command.read_only is None else self.time_ms
            self.read_only = command.read_only
            return c.LimitsReply(self.read_only, self.quota_bytes)
        if isinstance(command, c.SetQuota):
            self.quota_bytes = command.quota_bytes
            return c.LimitsReply(self.read_only, self.quota_bytes)
        if self.read_only is not None and writes(command):
            self.refused += 1
            why = f": {self.read_only}" if self.read_only else ""
            return c.RefusedReply(f"the cluster is read-only, an operator has turned writes off{why}")
        before, records, seq, events = self.size_bytes(), dict(self.records), self.seq, len(self.events)
        reply = self.command(command)
        after = self.size_bytes()
        if not self.quota_bytes or after <= max(before, self.quota_bytes):
            return reply
        self.records, self.seq = records, seq
        del self.events[events:]
        self.refused += 1
        return c.RefusedReply(
            f"the quota of the cluster is used up: keys and values take {before} bytes, the limit is {self.quota_bytes},"
            f" and this write would make it {after}; what deletes or shrinks is taken"
        )

    def size_bytes(self) -> int:
        return sum(len(key.encode()) + len(record.data) for key, record in self.records.items())

    def sweep(self) -> None:
        due = [
            (expiry, record.seq, key)
            for key, record in self.records.items()
            if (expiry := expiry_of(record)) is not None and expiry < self.time_ms
        ]
        for _, _, key in sorted(due):
            self.drop(key)

    def drop(self, key: str) -> None:
        self.events.append((key, self.records.pop(key), None))

    def read(self, now_ms: int) -> dict[str, SeqV]:
        """What a linearizable read shows when the leader's time is this: a tick has swept what is due, if anything is."""
        if any((expiry := expiry_of(record)) is not None and expiry < now_ms for record in self.records.values()):
            self.apply(now_ms, (c.TICK,))
        return dict(self.records)

    def visible(self, now_ms: int) -> dict[str, SeqV]:
        """What stale reads show at this time: expired records are hidden though they are not yet swept."""
        return {
            key: record
            for key, record in self.records.items()
            if (expiry := expiry_of(record)) is None or expiry >= now_ms
        }

    def seq_of(self, key: str) -> int:
        return self.records[key].seq if key in self.records else 0

    def count_of(self, prefix: str) -> int:
        return sum(1 for key in self.records if key.startswith(prefix))

    def store(self, key: str, value: bytes, expire_at: int | None, ttl_ms: int | None) -> SeqV | None:
        self.seq += 1
        if ttl_ms is not None:
            expire_at = min(self.time_ms + ttl_ms, U64_MAX)
        prev = self.records.get(key)
        if expire_at is not None and expire_ms(expire_at) < self.time_ms:
            if prev is not None:
                self.drop(key)
            return None
        self.records[key] = SeqV(self.seq, value, KVMeta(expire_at, self.time_ms))
        self.events.append((key, prev, self.records[key]))
        return self.records[key]

    # ---------------------------------------------------------------- commands

    def command(self, command: c.Command) -> c.Reply:
        if isinstance(command, c.Upsert):
            return self.upsert(command)
        if isinstance(command, c.Transaction):
            return self.transaction(command)
        assert isinstance(command, c.BranchTransaction)
        for index, branch in enumerate(command.branches):
            if self.predicate(branch.predicate):
                return c.BranchTransactionReply(index, self.run(branch.operations))
        return c.BranchTransactionReply(None, ())

    def upsert(self, command: c.Upsert) -> c.UpsertReply:
        prev = self.records.get(command.key)
        seq = self.seq_of(command.key)
        matches = {
            c.MatchKind.ANY: True,
            c.MatchKind.EXACT: seq == command.match.seq,
            c.MatchKind.GREATER_EQUAL: seq >= command.match.seq,
        }[command.match.kind]
        if not matches:
            return c.UpsertReply(prev, prev)
        if command.operation is c.Operation.DELETE:
            if prev is not None:
                self.drop(command.key)
            return c.UpsertReply(prev, None)
        value = command.value
        if command.operation is c.Operation.AS_IS:
            if prev is None:
                return c.UpsertReply(None, None)
            value = prev.data
        return c.UpsertReply(prev, self.store(command.key, value, command.expire_at, command.ttl_ms))

    def transaction(self, command: c.Transaction) -> c.TransactionReply:
        branches = [(branch.predicate, branch.operations, True, f"operation:{at}")
                    for at, branch in enumerate(command.branches)]  # fmt: skip
        all_of = c.Expression(c.Combine.AND, (), command.conditions)
        branches.append((all_of, command.if_then, True, "then"))
        if command.else_then:
            branches.append((None, command.else_then, False, "else"))
        for predicate, operations, success, path in branches:
            if self.predicate(predicate):
                return c.TransactionReply(success, self.run(operations), path)
        return c.TransactionReply(False, (), "else")

    # ---------------------------------------------------------------- conditions

    def predicate(self, tree: c.Expression | None) -> bool:
        if tree is None:
            return True
        children = [self.predicate(child) for child in tree.expressions]
        children += [self.condition(condition) for condition in tree.conditions]
        if not children:
            return True
        return any(children) if tree.combine is c.Combine.OR else all(children)

    def condition(self, condition: c.Condition) -> bool:
        key, target, comparison = condition.key, condition.target, condition.comparison
        operand: Any = condition.operand
        if target is c.Target.NONE:
            return False
        if target is c.Target.VALUE:
            if key not in self.records:
                return False
            left: Any = self.records[key].data
        elif target is c.Target.SEQ:
            left = self.seq_of(key)
        else:
            left = self.count_of(key)
        holds: bool = {
            c.Comparison.EQ: left == operand,
            c.Comparison.NE: left != operand,
            c.Comparison.LT: left < operand,
            c.Comparison.LE: left <= operand,
            c.Comparison.GT: left > operand,
            c.Comparison.GE: left >= operand,
        }[comparison]
        return holds

    # ---------------------------------------------------------------- operations

    def run(self, operations: tuple[c.TransactionOperation, ...]) -> tuple[c.OperationResponse, ...]:
        return tuple([self.operation(operation) for operation in operations])

    def operation(self, operation: c.TransactionOperation) -> c.OperationResponse:
        if isinstance(operation, c.Get):
            return c.GetResponse(operation.key, self.records.get(operation.key))
        if isinstance(operation, c.Put):
            prev = self.records.get(operation.key)
            if operation.match_seq is not None and operation.match_seq != self.seq_of(operation.key):
                return c.PutResponse(operation.key, prev, prev)
            current = self.store(operation.key, operation.value, operation.expire_at, operation.ttl_ms)
            return c.PutResponse(operation.key, prev, current)
        if isinstance(operation, c.Delete):
            prev = self.records.get(operation.key)
            matches = operation.match_seq is None or operation.match_seq == self.seq_of(operation.key)
            if prev is not None and matches:
                self.drop(operation.key)
            return c.DeleteResponse(operation.key, prev is not None and matches, prev)
        if isinstance(operation, c.DeleteByPrefix):
            doomed = sorted(key for key in self.records if key.startswith(operation.prefix))
            for key in doomed:
                self.drop(key)
            return c.DeleteByPrefixResponse(operation.prefix, len(doomed))
        if isinstance(operation, c.FetchIncrease):
            return self.fetch_increase(operation)
        number = self.fetch_increase(c.FetchIncrease(operation.sequence_key, 1)).before
        digits = str(number).zfill(21)
        key = operation.prefix + "_".join(digits[at : at + 3] for at in range(0, 21, 3))
        return self.operation(c.Put(key, operation.value, operation.expires_at_ms, operation.ttl_ms))

    def fetch_increase(self, operation: c.FetchIncrease) -> c.FetchIncreaseResponse:
        key = operation.key
        before_seq, before = self.seq_of(key), 0
        if key in self.records:
            try:
                parsed = json.loads(self.records[key].data.decode())  # JSON is UTF-8; `loads` would guess at bytes
            except ValueError:
                parsed = None
            before = parsed if type(parsed) is int and 0 <= parsed <= U64_MAX else 0
        if operation.match_seq is not None and operation.match_seq != before_seq:
            return c.FetchIncreaseResponse(key, before_seq, before, before_seq, before)
        after = max(0, min(U64_MAX, max(before, operation.floor) + operation.delta))
        self.store(key, str(after).encode(), None, None)
        return c.FetchIncreaseResponse(key, before_seq, before, self.seq, after)
