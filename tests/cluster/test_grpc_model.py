"""Random histories over the wire against the plain model of the contract: a stateful property test.

One node in this process, whose clock the test moves, so that expiry is exact; and three real nodes, where every
command goes to another of them and the model learns the log time from what is stored.
"""

from __future__ import annotations

import asyncio
import copy
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from metasrv.client import answers
from metasrv.grpc_api.service import GrpcService
from metasrv.model import commands as c
from metasrv.model.commands import Command, Reply
from metasrv.model.entries import RegularEntry
from metasrv.model.types import KVMeta, LogId, SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_bench import InstantConsensus, make_context
from tests.support.grpc_wire import Wire
from tests.support.state_model import Model, expire_ms
from tests.unit.state.test_state_model import commands, keys, resolved

pytestmark = pytest.mark.xdist_group("grpc-model")

BASE_MS = 1_700_000_000_000
"""What the commands' strategies take for now."""
HOUR_MS = 3_600_000


# ----------------------------------------------------------------------------- from commands to the wire

COMPARISONS = list(c.Comparison)


def condition_out(condition: c.Condition) -> pb.TxnCondition:
    target: dict[str, Any] = {}
    if condition.target is c.Target.SEQ:
        target["seq"] = condition.operand
    elif condition.target is c.Target.VALUE:
        target["value"] = condition.operand
    elif condition.target is c.Target.KEYS_WITH_PREFIX:
        target["keys_with_prefix"] = condition.operand
    return pb.TxnCondition(key=condition.key, expected=COMPARISONS.index(condition.comparison), **target)  # type: ignore[arg-type]


def expression_out(expression: c.Expression) -> pb.BooleanExpression:
    return pb.BooleanExpression(
        operator=pb.BooleanExpression.OR if expression.combine is c.Combine.OR else pb.BooleanExpression.AND,
        sub_expressions=map(expression_out, expression.expressions),
        conditions=map(condition_out, expression.conditions),
    )


def operation_out(operation: c.TransactionOperation) -> pb.TxnOp:
    if isinstance(operation, c.Get):
        return pb.TxnOp(get=pb.TxnGetRequest(key=operation.key))
    if isinstance(operation, c.Put):
        return pb.TxnOp(put=pb.TxnPutRequest(**operation._asdict()))
    if isinstance(operation, c.Delete):
        return pb.TxnOp(delete=pb.TxnDeleteRequest(**operation._asdict()))
    if isinstance(operation, c.DeleteByPrefix):
        return pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix=operation.prefix))
    if isinstance(operation, c.FetchIncrease):
        key, delta, match_seq, floor = operation
        return pb.TxnOp(
            fetch_increase_u64=pb.FetchIncreaseU64(key=key, delta=delta, match_seq=match_seq, max_value=floor)
        )
    return pb.TxnOp(put_sequential=pb.PutSequential(**operation._asdict()))


def branch_out(branch: c.Branch) -> pb.ConditionalOperation:
    predicate = None if branch.predicate is None else expression_out(branch.predicate)
    return pb.ConditionalOperation(predicate=predicate, operations=map(operation_out, branch.operations))


def record_of_tree(tree: dict[str, Any] | None) -> SeqV | None:
    if tree is None:
        return None
    meta = None if tree["meta"] is None else KVMeta(tree["meta"].get("expire_at"), tree["meta"].get("proposed_at_ms"))
    return SeqV(tree["seq"], bytes(tree["data"]), meta)


def send(wire: Wire, command: c.Command) -> c.Reply:
    """The command as a foreign client would send it, and its answer as the state machine's own reply."""
    if isinstance(command, c.Transaction):
        request = pb.TxnRequest(
            operations=map(branch_out, command.branches),
            condition=map(condition_out, command.conditions),
            if_then=map(operation_out, command.if_then),
            else_then=map(operation_out, command.else_then),
        )
        return answers.transaction_reply_of(wire.transaction(request))
    if isinstance(command, c.BranchTransaction):
        return answers.branch_transaction_reply_of(wire.kv_transaction(*map(branch_out, command.branches)))
    assert isinstance(command, c.Upsert)
    seq: Any = "Any"
    if command.match.kind is not c.MatchKind.ANY:
        seq = {"Exact" if command.match.kind is c.MatchKind.EXACT else "GE": command.match.seq}
    names = {c.Operation.UPDATE: command.value, c.Operation.DELETE: "Delete", c.Operation.AS_IS: "AsIs"}
    prev, result = wire.upsert(command.key, names[command.operation], seq, command.expire_at, command.ttl_ms)
    return c.UpsertReply(record_of_tree(prev), record_of_tree(result))


def records_of(wire: Wire, prefix: str = "") -> dict[str, SeqV]:
    return {item.key: answers.record_of(item.value) for item in wire.list(prefix)}


def visible(model: Model, now_ms: int) -> dict[str, SeqV]:
    """What reads show at this time: expired records are hidden though they are not yet swept."""
    return {
        key: record
        for key, record in sorted(model.records.items())
        if record.meta is None or record.meta.expire_at is None or expire_ms(record.meta.expire_at) >= now_ms
    }


# ----------------------------------------------------------------------------- one node, exact time


class TimedConsensus(InstantConsensus):
    """Stamps proposals with the test's time."""

    time_ms = BASE_MS

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        last = self.machine.last_applied
        (reply,) = self.machine.apply_entry(
            LogId(last.term, last.index + 1, 1), RegularEntry(self.time_ms, 1, (command,))
        )
        return reply


class OneNode:
    """A node in a thread of its own; time is what the test says."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.time_ms = BASE_MS
        self.wire = Wire(self._run(self._start()))

    async def _start(self) -> str:
        self._context, _ = make_context(Path(self._directory.name))
        self._context.clock.wall_ms = lambda: self.time_ms  # type: ignore[method-assign]
        self.consensus = self._context.consensus = TimedConsensus(self._context.machine)
        self._service = GrpcService(self._context)
        return str(await self._service.start())

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def pass_time(self, milliseconds: int) -> None:
        self.time_ms += milliseconds
        self.consensus.time_ms = self.time_ms

    def close(self) -> None:
        self.wire.close()
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._directory.cleanup()

    async def _stop(self) -> None:
        await self._service.stop(0)
        self._context.machine.close()


class TimedHistory(RuleBasedStateMachine):
    """Commands, reads and watches on one node while its clock goes on."""

    node: OneNode

    @initialize()
    def begin(self) -> None:
        self.node = OneNode()
        self.node.wire.handshake()  # takes an entry for the signing key, before the history begins
        self.model = Model()
        self.watched: list[tuple[Any, list[tuple[str, SeqV | None, SeqV | None]]]] = []

    def teardown(self) -> None:
        if hasattr(self, "node"):
            for call, _ in self.watched:
                call.cancel()
            self.node.close()

    @rule(several=st.lists(commands, min_size=1, max_size=10))
    def write(self, several: list[c.Command]) -> None:
        for command in several:
            self.model.events.clear()
            command = resolved(command, self.model)
            (expected,) = self.model.apply(self.node.time_ms, (command,))
            assert send(self.node.wire, command) == expected
            for _, events in self.watched:
                events += [event for event in self.model.events if event[1] != event[2]]

    @rule(milliseconds=st.sampled_from([0, 1, 2, 9, 30, 1000]))
    def pass_time(self, milliseconds: int) -> None:
        self.node.pass_time(milliseconds)

    @rule(prefix=keys, limit=st.none() | st.integers(0, 4), wanted=st.lists(keys, max_size=4))
    def read(self, prefix: str, limit: int | None, wanted: list[str]) -> None:
        wire, shown = self.node.wire, visible(self.model, self.node.time_ms)
        listed = {key: record for key, record in shown.items() if key.startswith(prefix)}
        assert records_of(wire, prefix) == listed
        first = list(listed.items())[: limit if limit is not None else None]
        assert [(item.key, answers.record_of(item.value)) for item in wire.kv_list(prefix, limit)] == first
        for items in (wire.mget(*wanted), wire.kv_get_many(*wanted)):
            assert [answers.item_of(item) for item in items] == [(key, shown.get(key)) for key in wanted]

    @rule(prefix=keys)
    def watch(self, prefix: str) -> None:
        """From the flush on, everything from `prefix` to the last key there is."""
        request = pb.WatchRequest(key=prefix, key_end="\U0010ffff\U0010ffff", initial_flush=True)
        call = self.node.wire.stub.Watch(request, timeout=60)
        flushed = []
        for item in call:
            if not item.HasField("event"):
                break
            flushed.append((item.event.key, answers.record_of(item.event.current)))
        assert flushed == [(key, record) for key, record in sorted(self.model.records.items()) if key >= prefix]
        self.watched.append((_From(call, prefix), []))

    @invariant()
    def watchers_heard_everything(self) -> None:
        for call, events in getattr(self, "watched", []):
            for event in [event for event in events if event[0] >= call.prefix]:
                assert call.next() == event
            events.clear()


class _From:
    def __init__(self, call: Any, prefix: str) -> None:
        self._call = call
        self.prefix = prefix
        self.cancel = call.cancel

    def next(self) -> tuple[str, SeqV | None, SeqV | None]:
        event = answers.watch_event_of(next(self._call))
        assert not event.is_initialization
        return event.key, event.prev, event.current


def test_one_node_agrees_with_the_model_whatever_the_time() -> None:
    ran = run_state_machine_as_test(
        TimedHistory,
        settings=settings(
            max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert ran is None


# ----------------------------------------------------------------------------- three nodes, real time


@pytest.fixture(scope="module")
def wires() -> Iterator[list[Wire]]:
    cluster = ProcessCluster(3)
    try:
        asyncio.run(cluster.boot())
        found = [Wire(str(node.grpc)) for node in cluster.nodes.values()]
        yield found
        for wire in found:
            wire.close()
    finally:
        cluster.close()


def steady(expire_at: int | None) -> int | None:
    """An expiry near the strategies' own now, moved to where the seconds that a test takes do not matter."""
    if expire_at is None or expire_at in (0, 10**11, 10**11 + 1) or expire_at >= 2**62:
        return expire_at
    return expire_at + 2_000_000_000_000 if expire_at > 10**11 else expire_at + 2_000_000_000


def steadied(value: Any) -> Any:
    """The command with every expiry far from now, and no time to live that ends during the test."""
    if isinstance(value, c.Put | c.Upsert):
        return value._replace(expire_at=steady(value.expire_at), ttl_ms=_long(value.ttl_ms))
    if isinstance(value, c.PutSequential):
        return value._replace(expires_at_ms=steady(value.expires_at_ms), ttl_ms=_long(value.ttl_ms))
    if isinstance(value, c.Condition | c.Expression | c.MatchSeq) or not isinstance(value, tuple):
        return value
    parts = [steadied(part) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _long(ttl_ms: int | None) -> int | None:
    return None if ttl_ms is None else min(ttl_ms + HOUR_MS, 2**64 - 1)


class ClusterHistory(RuleBasedStateMachine):
    """Commands through each of three nodes in any order; after each the model and all three nodes agree."""

    wires: list[Wire]

    @initialize()
    def begin(self) -> None:
        # Sequence numbers and time go on from the last history; the records begin anew.
        self.wires[0].run(pb.TxnOp(delete_by_prefix=pb.TxnDeleteByPrefixRequest(prefix="")))
        first = self.wires[1].put("begin").current
        self.model = Model(seq=first.seq, time_ms=first.meta.proposed_at_ms)
        self.wires[2].delete("begin")

    @rule(several=st.lists(commands.map(steadied), min_size=1, max_size=8), turn=st.integers(0, 2))
    def write(self, several: list[c.Command], turn: int) -> None:
        for position, command in enumerate(several):
            self.write_one(command, (turn + position) % 3)

    def write_one(self, command: c.Command, turn: int) -> None:
        command = resolved(command, self.model)
        reply = send(self.wires[turn], command)
        stored = records_of(self.wires[(turn + 1) % 3])
        # The leader stamped the command: any record that it wrote tells when.
        written = [
            record.meta.proposed_at_ms for record in stored.values() if record.seq > self.model.seq and record.meta
        ]
        time_ms = written[0] if written else self.model.time_ms
        assert time_ms is not None
        assert time_ms >= self.model.time_ms
        before = copy.deepcopy(self.model)
        (expected,) = self.model.apply(time_ms, (command,))
        if not written and self.model.seq != before.seq:
            # Written and gone again within one command: only its replies know the time.
            assert _timeless(reply) == _timeless(expected)
        else:
            assert reply == expected
        assert stored == self.model.records

    @rule(turn=st.integers(0, 2), prefix=keys, limit=st.none() | st.integers(0, 4), wanted=st.lists(keys, max_size=4))
    def read(self, turn: int, prefix: str, limit: int | None, wanted: list[str]) -> None:
        wire = self.wires[turn]
        listed = [item for item in sorted(self.model.records.items()) if item[0].startswith(prefix)]
        assert list(records_of(wire, prefix).items()) == listed
        found = [answers.item_of(item) for item in wire.kv_list(prefix, limit)]
        assert found == listed[: limit if limit is not None else None]
        assert [answers.item_of(item) for item in wire.mget(*wanted)] == [
            (key, self.model.records.get(key)) for key in wanted
        ]


def _timeless(reply: c.Reply) -> Any:
    def masked(value: Any) -> Any:
        if isinstance(value, KVMeta):
            return ()
        if isinstance(value, tuple):
            return tuple(map(masked, value))
        return value

    return masked(tuple(reply))


def test_three_nodes_agree_with_the_model_through_each_of_them(wires: list[Wire]) -> None:
    ClusterHistory.wires = wires
    ran = run_state_machine_as_test(
        ClusterHistory,
        settings=settings(
            max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert ran is None
