"""Random histories over the wire against the plain model of the contract, through three real nodes.

Every command goes to another node, and the model learns the log time from what is stored.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from metasrv.client import answers
from metasrv.model import commands as c
from metasrv.model.types import KVMeta
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.testing.processes import ProcessCluster
from tests.support.grpc_commands import records_of, send
from tests.support.grpc_wire import Wire
from tests.support.state_model import Model
from tests.support.state_strategies import commands, keys, resolved

pytestmark = pytest.mark.xdist_group("grpc-model")

HOUR_MS = 3_600_000


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

    begun: ClassVar[int] = 0
    wires: list[Wire]

    @initialize()
    def begin(self) -> None:
        ClusterHistory.begun += 1
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
    run_state_machine_as_test(
        ClusterHistory,
        settings=settings(
            max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert ClusterHistory.begun > 0
