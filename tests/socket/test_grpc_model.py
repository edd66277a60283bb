"""Random histories over the wire against the plain model of the contract: a stateful property test.

One node in this process, whose clock the test moves, so that expiry is exact.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from metasrv.client import answers
from metasrv.model import commands as c
from metasrv.model.types import SeqV
from metasrv.protocol.proto import meta_pb2 as pb
from tests.support.grpc_commands import records_of, send
from tests.support.grpc_thread import ThreadedNode
from tests.support.state_model import Model
from tests.support.state_strategies import commands, keys, resolved


class TimedHistory(RuleBasedStateMachine):
    """Commands, reads and watches on one node while its clock goes on."""

    begun: ClassVar[int] = 0
    node: ThreadedNode

    @initialize()
    def begin(self) -> None:
        TimedHistory.begun += 1
        self.node = ThreadedNode()
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
        self.node.clock.advance(milliseconds / 1000)

    @rule(prefix=keys, limit=st.none() | st.integers(0, 4), wanted=st.lists(keys, max_size=4))
    def read(self, prefix: str, limit: int | None, wanted: list[str]) -> None:
        self.model.events.clear()
        wire, shown = self.node.wire, dict(sorted(self.model.read(self.node.time_ms).items()))
        for _, events in self.watched:
            events += self.model.events
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
    run_state_machine_as_test(
        TimedHistory,
        settings=settings(
            max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert TimedHistory.begun > 0
