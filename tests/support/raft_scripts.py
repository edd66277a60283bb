"""Scripts of Raft: cores of a cluster in memory, moved by commands, and what happened as lines of text.

`tests/unit/raft/scripts/README.md` lists the commands. Disks, messages and clocks are lists and numbers here, so that a
script decides when each of them moves. Every node has a clock of its own, which stands still until it is told to run.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from metasrv.model.codec import encode_command
from metasrv.model.commands import FeatureReply, MatchKind, MatchSeq, Operation, Upsert
from metasrv.model.entries import MembershipEntry, RegularEntry, decode_entry, encode_membership_entry
from metasrv.model.types import Membership
from metasrv.raft.core.engine import CANDIDATE, LEADER
from metasrv.raft.core.guards import ElectionStep
from metasrv.raft.core.inbox import Inbox
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.messages import (
    AppendEntries,
    AppendReply,
    Message,
    RequestVote,
    SnapshotChunk,
    encode_message,
)
from metasrv.raft.core.step import Core, CoreHandlers, CoreSettings, Events, Ready
from metasrv.raft.log.files import OpenedLog
from metasrv.raft.log.format import INDEX, TERM, LogContents, LogEntry, MetaRow, PendingWrite
from metasrv.raft.log.store import LogStore
from metasrv.testing.hand_clock import HandClock
from tests.support.raft_bench import FIRST_ENTRY, membership, no_laps

TICK_MS = 25
_MOVE_MS = 5
_STEPS_MAX = 2_000


class Waiting:
    """Who waits for the outcome of a proposal or read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False

    def done(self) -> bool:
        return self.ended


@dataclass
class FakeDisk:
    """What survives a crash: the log as it was last written, and the state."""

    entries: list[LogEntry] = field(default_factory=lambda: [FIRST_ENTRY])
    term: int = 0
    voted_for: str | None = None
    applied_index: int = 1
    applied: list[str] = field(default_factory=list)
    membership: Membership = field(default_factory=lambda: Membership({}, {}))

    def write(self, pending: PendingWrite) -> None:
        kept = [] if pending.delete_all else self.entries
        if pending.delete_from is not None:
            kept = [entry for entry in kept if entry[INDEX] < pending.delete_from]
        if pending.delete_before is not None:
            kept = [entry for entry in kept if entry[INDEX] >= pending.delete_before]
        self.entries = [*kept, *pending.entries]
        self.term, self.voted_for = pending.term, pending.voted_for

    def open(self) -> LogStore:
        mark: Any = None
        contents = LogContents(list(self.entries), MetaRow(b"", self.entries[0][INDEX], 1, self.term, self.voted_for), 1)
        return LogStore("in memory", OpenedLog(contents, mark))


class ScriptNode:
    """One node of a script, from a start to a crash."""

    def __init__(self, cluster: ScriptCluster, node_id: int, disk: FakeDisk) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.disk = disk
        self.clock = cluster.clock_of(node_id)
        self.store = disk.open()
        self.inbox = Inbox()
        self.writing: Ready | None = None
        self.timers: list[float] = []
        self.next_tick = self.clock.monotonic()
        self.synced_at: float | None = None
        self.snapshot: tuple[int, dict[str, Any]] | None = None
        """Who sent a snapshot that has to be put in place, and what is in it."""
        self.sent_to: set[int] = set()
        self.core = Core(
            settings=CoreSettings(node_id, f"directory-{node_id}", 0.1, (0.4, 0.6)),
            clock=cluster.clock,
            store=self.store,
            membership=self._membership_in_log(),
            applied_index=disk.applied_index,
            log_time=LogTime(cluster.clock, 0),
            handlers=CoreHandlers(
                apply=self._apply,
                membership_changed=lambda now: self.tell(f"goes by {_members(now)}"),
                election=self._election,
                may_stand=lambda: True,
                reachable=lambda other: other in cluster.nodes,
                snapshots=self,
                snapshot_chunk=self._snapshot_chunk,
                snapshot_expected=lambda _term: self.snapshot is not None,
                append_acknowledged=lambda _node_id, _seconds: None,
            ),
            laps=no_laps(),
        )
        for other in cluster.nodes:
            self.core.engine.peer_ready(other, True)

    def _membership_in_log(self) -> Membership:
        for content, _, _ in reversed(self.disk.entries):
            entry = decode_entry(content)
            if isinstance(entry, MembershipEntry):
                return entry.after
        return self.disk.membership

    # ------------------------------------------------------------------ what is told

    def tell(self, text: str) -> None:
        self.cluster.news(f"{self.node_id} {text}")

    def mention(self, text: str) -> None:
        self.cluster.detail(f"{self.node_id} {text}")

    def _election(self, step: ElectionStep, other: int, term: int) -> None:
        texts = {
            ElectionStep.BEGINS: f"misses a leader and asks whether it may stand in term {term}",
            ElectionStep.STANDS: f"may stand in term {term}: a majority misses the leader too",
            ElectionStep.IS_ASKED_TO_STAND: f"stands in term {term} because the leader hands over",
            ElectionStep.VOTES: f"votes for {other} in term {term}",
            ElectionStep.VOTES_ON_REQUEST: f"votes for {other} in term {term} because the leader hands over",
            ElectionStep.GETS_VOTE: f"gets the vote of {other} in term {term}",
        }
        self.tell(texts[step])

    # ------------------------------------------------------------------ state and snapshots

    def _apply(self, content: bytes, index: int, term: int) -> None:
        text = _entry_text(content)
        self.disk.applied_index = index
        self.disk.applied.append(text)
        entry = decode_entry(content)
        if isinstance(entry, MembershipEntry):
            self.disk.membership = entry.after
        self.tell(f"applies {index}: {text}")
        replies = len(entry.commands) if isinstance(entry, RegularEntry) else 0
        self.core.proposals.applied(index, term, (FeatureReply(()),) * replies)

    def next_chunk(self, node_id: int) -> tuple[SnapshotChunk | None, bool]:
        index = self.disk.applied_index
        previous, last = self.store.entry_at(index - 1), self.store.entry_at(index)
        if node_id in self.sent_to or previous is None or last is None:
            return None, False
        self.sent_to.add(node_id)
        tail = [[content.hex(), at, term] for content, at, term in (previous, last)]
        data = json.dumps({"tail": tail, "applied": self.disk.applied}).encode()
        return SnapshotChunk(0, 0, "t", 0, len(data), "", data), True

    def _snapshot_chunk(self, node_id: int, chunk: SnapshotChunk) -> None:
        self.snapshot = node_id, json.loads(chunk.data)

    def _install(self) -> None:
        if self.snapshot is None or self.writing is not None:
            return
        (leader_id, content), self.snapshot = self.snapshot, None
        previous, last = ((bytes.fromhex(text), at, term) for text, at, term in content["tail"])
        self.disk.applied_index, self.disk.applied = last[INDEX], content["applied"]
        self.core.engine.install(previous, last, self.core.engine.membership())
        self.tell(f"puts a snapshot in place that ends with entry {last[INDEX]}")
        self.core.engine.reply_append(leader_id)
        self.step()

    # ------------------------------------------------------------------ stepping

    def step(self, *, tick: bool = False) -> None:
        """Take a step, unless a write is in flight, and do what it says."""
        if self.writing is not None:
            return
        with self.cluster.at(self.node_id):
            now = self.clock.monotonic()
            synced_at, self.synced_at = self.synced_at, None
            ready = self.core.step(Events(now, self.inbox, tick, synced_at))
            self._carry_out(ready, now)
            self._install()
        if ready.again:
            self.step()

    def _carry_out(self, ready: Ready, now: float) -> None:
        if ready.role_changed:
            leads = self.core.engine.role() == LEADER
            self.tell(f"leads in term {self.core.engine.term()}" if leads else "no longer leads")
        for waiters, replies in ready.applied:
            self._end(waiters, [f"answers {{}}: done ({type(reply).__name__})" for reply in replies])
        for waiters, error in ready.rejected:
            self._end(waiters, [f"refuses {{}}: {error}"] * len(waiters))
        for waiters, read_indexes in ready.reads_confirmed:
            self._end(waiters, [f"may answer {{}} once {index} is applied" for index in read_indexes])
        self.timers += [now + wait for wait in (ready.batch_in, ready.notice_in) if wait is not None]
        self._send(ready.send_now)
        if ready.persist is not None:
            self.mention(f"begins to write {_write_text(ready.persist)}")
            self.writing = ready

    def _end(self, waiters: Any, texts: list[str]) -> None:
        for waiting, text in zip(waiters, texts, strict=True):
            waiting.ended = True
            self.tell(text.format(waiting.name).replace(" (FeatureReply)", ""))

    def _send(self, messages: Any) -> None:
        for other, message in messages:
            lost = not self.cluster.send(self.node_id, other, message)
            self.mention(f"-> {other}: {_message_text(message)}{' (lost)' if lost else ''}")

    def sync(self) -> None:
        """The write in flight is on the disk."""
        ready, self.writing = self.writing, None
        if ready is None or ready.persist is None:
            return
        self.disk.write(ready.persist)
        self.mention("has it on the disk")
        self.synced_at = self.clock.monotonic()
        with self.cluster.at(self.node_id):
            self._send(ready.send_after_sync)
        self.step()

    def move(self, milliseconds: int) -> None:
        """Let this node's clock run, with what its timers do."""
        for _ in range(milliseconds // _MOVE_MS):
            self.clock.advance(_MOVE_MS / 1000)
            now = self.clock.monotonic() + 1e-9
            due = [timer for timer in self.timers if timer <= now]
            if due:
                self.timers = [timer for timer in self.timers if timer > now]
            if self.next_tick <= now:
                self.next_tick += TICK_MS / 1000
                self.step(tick=True)
            elif due:
                self.step()


class NodeClock:
    """The clock of the node whose turn it is: pysyncobj has one for the whole process."""

    def __init__(self) -> None:
        self.current = HandClock()

    def monotonic(self) -> float:
        return self.current.monotonic()

    def wall_ms(self) -> int:
        return self.current.wall_ms()


class ScriptCluster:
    """The nodes that run, the disks of all, and the messages on their way."""

    def __init__(self) -> None:
        self.clock: Any = NodeClock()
        self.clocks: dict[int, HandClock] = {}
        self.disks: dict[int, FakeDisk] = {}
        self.nodes: dict[int, ScriptNode] = {}
        self.queues: dict[tuple[int, int], deque[Message]] = {}
        self.groups: list[set[int]] = []
        self.lines: list[str] = []
        self.quiet = False

    def clock_of(self, node_id: int) -> HandClock:
        return self.clocks.setdefault(node_id, HandClock())

    @contextmanager
    def at(self, node_id: int) -> Iterator[None]:
        before, self.clock.current = self.clock.current, self.clock_of(node_id)
        try:
            yield
        finally:
            self.clock.current = before

    def news(self, text: str) -> None:
        self.lines.append(text)

    def detail(self, text: str) -> None:
        if not self.quiet:
            self.lines.append(text)

    # ------------------------------------------------------------------ the wire

    def send(self, sender: int, receiver: int, message: Message) -> bool:
        """Put a message on its way; False when it is lost."""
        together = not self.groups or any({sender, receiver} <= group for group in self.groups)
        if receiver not in self.nodes or not together:
            return False
        self.queues.setdefault((sender, receiver), deque()).append(message)
        return True

    def deliver(self, sender: int, receiver: int, count_max: int = _STEPS_MAX) -> None:
        queue, node = self.queues.get((sender, receiver)), self.nodes.get(receiver)
        if not queue or node is None:
            return
        for _ in range(min(count_max, len(queue))):
            node.inbox.put(sender, encode_message(queue.popleft()))
        if not queue:
            del self.queues[sender, receiver]
        node.step()

    def settle(self) -> None:
        """Deliver every message and finish every write, until nothing is on its way."""
        for _ in range(_STEPS_MAX):
            queues, writing = sorted(self.queues), [node for node in self.nodes.values() if node.writing is not None]
            if not queues and not writing:
                return
            for sender, receiver in queues:
                self.deliver(sender, receiver)
            for node in writing:
                node.sync()
        raise AssertionError("the cluster does not come to rest")

    # ------------------------------------------------------------------ commands

    def run(self, command: str) -> None:
        name, *words = command.split()
        getattr(self, f"do_{name}")(*words)

    def do_cluster(self, voters: str, *spare: str) -> None:
        ids = list(range(1, int(voters) + 1))
        for node_id in [*ids, *(int(word) for word in spare if word.isdigit())]:
            self.disks[node_id] = FakeDisk(membership=membership(*ids) if node_id in ids else Membership({}, {}))
        for node_id in sorted(self.disks):
            self.do_restart(str(node_id), quiet=True)

    def do_tick(self, node: str, time: str) -> None:
        self.nodes[int(node)].move(int(time.removesuffix("ms")))

    def do_run(self, time: str) -> None:
        with self._quietly():
            for _ in range(int(time.removesuffix("ms")) // _MOVE_MS):
                for node_id in sorted(self.nodes):
                    self.nodes[node_id].move(_MOVE_MS)
                self.settle()

    def do_elect(self, node: str) -> None:
        with self._quietly():
            for _ in range(200):
                if self.nodes[int(node)].core.engine.role() == LEADER:
                    return
                self.nodes[int(node)].move(TICK_MS)
                self.settle()

    def do_settle(self) -> None:
        with self._quietly():
            self.settle()

    def do_deliver(self, *pairs: str) -> None:
        if pairs == ("all",):
            pairs = tuple(f"{sender}->{receiver}" for sender, receiver in sorted(self.queues))
        for word in pairs:
            pair, _, count = word.partition(":")
            sender, receiver = map(int, pair.split("->"))
            self.deliver(sender, receiver, int(count) if count else _STEPS_MAX)

    def do_drop(self, pair: str) -> None:
        sender, receiver = map(int, pair.split("->"))
        lost = len(self.queues.pop((sender, receiver), ()))
        self.news(f"{lost} message{'' if lost == 1 else 's'} lost from {sender} to {receiver}")

    def do_sync(self, node: str) -> None:
        self.nodes[int(node)].sync()

    def do_propose(self, node: str, name: str, size_bytes: str = "0") -> None:
        at = self.nodes[int(node)]
        command = Upsert(name, MatchSeq(MatchKind.ANY), Operation.UPDATE, bytes(int(size_bytes)))
        at.core.proposals.submit(command, encode_command(command), at.clock.monotonic(), 60.0, Waiting(name))
        at.step()

    def do_read(self, node: str, name: str) -> None:
        at, engine = self.nodes[int(node)], self.nodes[int(node)].core.engine
        at.core.reads.register(
            max(engine.commit_index(), engine.noop_index() if engine.role() == LEADER else 0), Waiting(name)
        )
        at.step()

    def do_members(self, node: str, *words: str) -> None:
        cut = words.index("learners") if "learners" in words else len(words)
        voters, learners = [int(word) for word in words[:cut]], tuple(int(word) for word in words[cut + 1 :])
        at = self.nodes[int(node)]
        after = membership(*voters, learners=learners)
        with self.at(at.node_id):
            at.core.append(encode_membership_entry(at.node_id, at.core.engine.membership(), after))
        at.step()

    def do_transfer(self, pair: str) -> None:
        sender, receiver = map(int, pair.split("->"))
        with self.at(sender):
            self.nodes[sender].core.engine.ask_to_campaign(receiver)
        self.nodes[sender].step()

    def do_purge(self, node: str, index: str) -> None:
        self.nodes[int(node)].store.purge_to(int(index))

    def do_partition(self, *words: str) -> None:
        self.groups = [{int(word) for word in group.split()} for group in " ".join(words).split("|")]

    def do_heal(self) -> None:
        self.groups = []

    def do_crash(self, node: str) -> None:
        gone = self.nodes.pop(int(node))
        self.queues = {pair: queue for pair, queue in self.queues.items() if gone.node_id not in pair}
        for other in self.nodes.values():
            with self.at(other.node_id):
                other.core.engine.peer_ready(gone.node_id, False)
                other.core.guards.leader_connection_lost(gone.node_id, other.clock.monotonic())

    def do_restart(self, node: str, quiet: bool = False) -> None:
        node_id = int(node)
        with self.at(node_id):
            started = self.nodes[node_id] = ScriptNode(self, node_id, self.disks[node_id])
        for other in self.nodes.values():
            if other is not started:
                other.core.engine.peer_ready(node_id, True)
                other.core.broadcast_soon()
        if not quiet:
            self.do_log(node)

    def do_log(self, *nodes: str) -> None:
        for node_id in [int(word) for word in nodes] or sorted(self.nodes):
            node = self.nodes[node_id]
            engine, store = node.core.engine, node.store
            entries = " ".join(f"{index}/{term}" for _, index, term in store[:])
            role = {LEADER: "leader", CANDIDATE: "candidate"}.get(engine.role(), "follower")
            vote = store.getVotedForNodeId()
            self.lines.append(
                f"{node_id} {role}, term {engine.term()}, vote {vote or '-'}, entries {entries}, "
                f"commit {engine.commit_index()}, applied {engine.applied_index()}"
            )

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False


# ---------------------------------------------------------------------- texts


def _entry_text(content: bytes) -> str:
    entry = decode_entry(content)
    if isinstance(entry, RegularEntry):
        return " and ".join(getattr(command, "key", type(command).__name__) for command in entry.commands)
    return _members(entry.after) if isinstance(entry, MembershipEntry) else "no-op"


def _members(members: Membership) -> str:
    text = f"voters {' '.join(map(str, sorted(members.voters)))}"
    return f"{text}, learners {' '.join(map(str, sorted(members.learners)))}" if members.learners else text


def _indexes(entries: Any) -> str:
    return " ".join(f"{entry[INDEX]}/{entry[TERM]}" for entry in entries)


def _write_text(pending: PendingWrite) -> str:
    parts = ["the log anew"] if pending.delete_all else []
    if pending.delete_from is not None:
        parts.append(f"that {pending.delete_from} and above are cut off")
    if pending.entries:
        parts.append(f"entries {_indexes(pending.entries)}")
    if pending.changes_meta:
        parts.append(f"term {pending.term} with vote {pending.voted_for or '-'}")
    return ", ".join(parts)


def _message_text(message: Message) -> str:
    if isinstance(message, AppendEntries):
        what = f"entries {_indexes(message.entries)}" if message.entries else "heartbeat"
        after = f"after {message.previous_index}/{message.previous_term}, commit {message.commit_index}"
        return f"{what} {after}, term {message.term}, round {message.round}"
    if isinstance(message, AppendReply):
        if not message.success:
            return f"does not fit, go on from {message.next_index}, term {message.term}"
        return f"has up to {message.next_index - 1}, term {message.term}, round {message.round}"
    if isinstance(message, SnapshotChunk):
        return f"snapshot, term {message.term}"
    fields = [f"{name.replace('_', ' ')} {value}" for name, value in message._asdict().items() if value is not False]
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(message).__name__).strip()
    if isinstance(message, RequestVote) and message.transfer:
        fields[-1] = "the leader hands over"
    return f"{words}, {', '.join(fields)}"


# ---------------------------------------------------------------------- scripts


def replay(text: str, seed: str) -> str:
    """The script as it has to be: its comments and commands, each with the lines of what it did."""
    cluster, out = ScriptCluster(), list[str]()
    state = random.getstate()
    random.seed(seed)
    try:
        for line in text.splitlines():
            if line.startswith(" "):
                continue  # what was expected
            out.append(line.rstrip())
            if line.strip() and not line.startswith("#"):
                cluster.lines = []
                cluster.run(line)
                out += [f"  {told}" for told in cluster.lines]
    finally:
        random.setstate(state)
    return "\n".join(out) + "\n"
