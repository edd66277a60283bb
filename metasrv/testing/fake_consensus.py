"""One node's consensus without an engine: the in-memory twin of `raft/consensus.py`.

It says what the test told it, and commits at once to a state machine if it was given one. Nothing is replicated. Runs
on any event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from metasrv.consensus import JoinRequest, TransferResult
from metasrv.model.commands import KNOWN_FEATURES, TICK, Command, ErrorReply, FeatureReply, Reply, SetFeature
from metasrv.model.entries import MembershipEntry, RegularEntry
from metasrv.model.errors import NotLeaderError
from metasrv.model.types import CompactionStatus, LogId, Membership, RaftState, RaftStatus
from metasrv.process.clock import Clock, SystemClock
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import SnapshotTail, SnapshotWriter


class FakeConsensus:
    """Implements `Consensus` for the node that `current` describes.

    With a `machine`, a proposal is its next entry, stamped by `clock`, and the status has the machine's positions.
    Without one, proposals change nothing.
    """

    def __init__(self, current: RaftStatus, machine: StateMachine | None = None, clock: Clock | None = None) -> None:
        self.current = current
        self.failure: Exception | None = None
        """Raised by whatever is asked, instead of doing it."""
        self.status_failure: Exception | None = None
        """Raised by `status`."""
        self.hold: asyncio.Event | None = None
        """Proposals wait for it before they are committed."""
        self.asked: list[tuple[Any, ...]] = []
        """Every call but `status`: the method's name and its arguments."""
        self.knowing: dict[int, frozenset[str] | None] = {}
        """The features that members know, for those that do not know all; None: such a member gives no answer."""
        self._machine = machine
        self._clock = clock or SystemClock()
        if machine is not None and machine.last_applied.index == 0:
            machine.apply_entry(LogId(1, 1, 1), MembershipEntry(1, Membership(), current.membership))

    # ------------------------------------------------------------------ what a test says and sees

    def change(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.current = replace(self.current, **fields)

    def follow(self, leader_id: int | None) -> None:
        """From now on a follower of this leader; None: it knows no leader and has no quorum."""
        self.change(state=RaftState.FOLLOWER, leader_id=leader_id, replication=None, has_quorum=leader_id is not None)

    def write_snapshot(self, path: Path) -> None:
        """Write a snapshot file of the machine as it is now, and call it the newest one."""
        assert self._machine is not None, "there is no state to write"
        writer = SnapshotWriter(self._machine.path)
        log_id = writer.pin()
        tail = SnapshotTail((b"previous", log_id.index - 1, log_id.term), (b"last", log_id.index, log_id.term))
        self.change(snapshot=self.current.snapshot._replace(path=writer.write(str(path), tail).path))

    @property
    def proposals(self) -> list[Command]:
        return [arguments[0] for name, *arguments in self.asked if name == "propose"]

    @property
    def barriers(self) -> int:
        return sum(name == "read_barrier" for name, *_ in self.asked)

    # ------------------------------------------------------------------ Consensus

    def status(self) -> RaftStatus:
        if self.status_failure is not None:
            raise self.status_failure
        if self._machine is None:
            return self.current
        applied = self._machine.last_applied
        replication = self.current.replication
        sizes = self._machine.file_sizes()
        return replace(
            self.current,
            last_log_id=applied,
            commit_index=applied.index,
            last_applied=applied,
            replication=None if replication is None else {**replication, self.current.node_id: applied},
            last_seq=self._machine.last_seq,
            limits=self._machine.limits,
            data_size_bytes=self._machine.data_size_bytes,
            writes_refused=self._machine.writes_refused,
            state_size_bytes=sum(sizes),
            state_log_size_bytes=sizes.log_bytes,
        )

    async def propose(self, command: Command, timeout_ms: int) -> Reply:
        assert timeout_ms > 0
        self._ask("propose", command, timeout_ms)
        if self.hold is not None:
            await self.hold.wait()
        if self._machine is not None:
            last = self._machine.last_applied
            entry = RegularEntry(self._clock.wall_ms(), self.current.node_id, (command,))
            (reply,) = self._machine.apply_entry(LogId(last.term, last.index + 1, self.current.node_id), entry)
            return reply
        if isinstance(command, SetFeature):
            return FeatureReply((command.feature,) if command.enable else ())
        return ErrorReply(f"the fake has no reply to {type(command).__name__}")

    async def propose_local(self, command: Command, timeout_ms: int) -> Reply:
        self._lead()
        return await self.propose(command, timeout_ms)

    async def read_barrier(self, timeout_ms: int) -> None:
        assert timeout_ms > 0
        self._ask("read_barrier", timeout_ms)
        machine, now_ms = self._machine, self._clock.wall_ms()
        if machine is not None and machine.expires_before(now_ms):
            last = machine.last_applied
            log_id = LogId(last.term, last.index + 1, self.current.node_id)
            machine.apply_entry(log_id, RegularEntry(now_ms, self.current.node_id, (TICK,)))

    async def read_barrier_local(self, timeout_ms: int) -> None:
        self._lead()
        await self.read_barrier(timeout_ms)

    async def wait_applied(self, index: int, timeout_ms: int) -> None:
        self._ask("wait_applied", index, timeout_ms)

    async def trigger_snapshot(self) -> None:
        self._ask("trigger_snapshot")

    def compact(self) -> None:
        self._ask("compact")
        self.change(compaction=CompactionStatus("done", 0, {}, {}))

    async def drain(self, timeout_ms: int) -> None:
        self._ask("drain", timeout_ms)
        self.change(drained=True)

    def end_drain(self) -> None:
        self._ask("end_drain")
        self.change(drained=False)

    async def transfer_leadership(self, to_id: int | None) -> TransferResult:
        self._ask("transfer_leadership", to_id)
        self._lead()
        status = self.current
        voters = sorted(status.membership.voters)
        following = [node_id for node_id in voters if node_id > status.node_id] or voters
        return TransferResult(status.node_id, following[0] if to_id is None else to_id, voters)

    async def known_features(self) -> dict[int, frozenset[str] | None]:
        membership = self.current.membership
        everything = frozenset(KNOWN_FEATURES)
        return {i: self.knowing.get(i, everything) for i in (*membership.voters, *membership.learners)}

    async def join(self, request: JoinRequest, timeout_ms: int) -> None:
        self._ask("join", request, timeout_ms)

    async def leave(self, node_id: int, timeout_ms: int) -> None:
        self._ask("leave", node_id, timeout_ms)

    def _ask(self, name: str, *arguments: Any) -> None:
        self.asked.append((name, *arguments))
        if self.failure is not None:
            raise self.failure

    def _lead(self) -> None:
        if not self.current.is_leader:
            raise NotLeaderError(self.current.leader_id)
