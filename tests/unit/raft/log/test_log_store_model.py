"""The raft log against a plain list: any mix of operations, writes, checkpoints and restarts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.log_bench import OpenLog, entry


class LogModel(RuleBasedStateMachine):
    """Any mix of operations: the log equals a list, the reopened log what was written last (plus unpurged front)."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    @initialize(first=st.sampled_from([1, 700]))
    def create(self, first: int) -> None:
        self.model = [entry(first, 0)]
        self.log = OpenLog(Path(self.directory.name), list(self.model))
        self.term = 0
        self.vote: str | None = None
        self.written = list(self.model)
        self.written_term: tuple[int, str | None] = (0, None)

    @rule(count=st.sampled_from([1, 2, 3, 70, 600]), size_bytes=st.sampled_from([30, 300, 6000]))
    def add(self, count: int, size_bytes: int) -> None:
        if count * size_bytes > 600_000:
            size_bytes = 30
        for _ in range(count):
            new = entry(self.model[-1][1] + 1, self.term, size_bytes)
            self.log.store.add(*new)
            self.model.append(new)

    @rule(data=st.data())
    def cut_end(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(1, len(self.model)))
        self.log.store.deleteEntriesFrom(position)
        del self.model[position:]

    @rule(data=st.data(), by_position=st.booleans())
    def purge(self, data: st.DataObject, by_position: bool) -> None:
        count = data.draw(st.integers(0, len(self.model) + 1))
        if by_position:
            self.log.store.deleteEntriesTo(count)
        else:
            self.log.store.purge_to(self.model[0][1] + count)
        del self.model[: max(0, min(count, len(self.model) - 2))]

    @rule(step=st.integers(1, 3), vote=st.sampled_from([None, "1", "22"]))
    def new_term(self, step: int, vote: str | None) -> None:
        self.term, self.vote = self.term + step, vote
        self.log.store.setCurrentTerm(self.term, vote)

    @precondition(lambda self: self.vote is None)
    @rule(vote=st.sampled_from(["1", "333"]))
    def give_vote(self, vote: str) -> None:
        self.vote = vote
        self.log.store.setCurrentTerm(self.term, vote)

    @rule(index=st.integers(1, 3000))
    def install(self, index: int) -> None:
        self.model = [entry(index, self.term), entry(index + 1, self.term)]
        self.log.store.reset_to(self.model)

    @rule()
    def second_passes(self) -> None:
        self.log.store.onOneSecondTimer()

    @rule()
    def write(self) -> None:
        was_dirty = self.log.store.dirty
        pending = self.log.store.take_pending()
        if pending is None:
            assert not was_dirty
            return
        self.log.writer.write(pending)
        self.written = list(self.model)
        self.written_term = (self.term, self.vote)

    @rule()
    def checkpoint(self) -> None:
        self.log.writer._wal_used_bytes = 1 << 30
        self.log.writer._looked_at = 0
        self.log.writer.checkpoint_if_due()

    @rule()
    def restart_losing_what_was_not_written(self) -> None:
        self.log.writer.close()
        self.log = OpenLog(Path(self.directory.name), None)
        recovered = self.log.store[:]
        assert recovered[-len(self.written) :] == self.written
        assert (self.log.store.getCurrentTerm(), self.log.store.getVotedForNodeId()) == self.written_term
        self.model, self.written = recovered, list(recovered)
        self.term, self.vote = self.written_term

    @invariant()
    def equals_the_model(self) -> None:
        store = self.log.store
        assert store[:] == self.model
        assert (store.first_index, store.last_index) == (self.model[0][1], self.model[-1][1])
        assert store.entry_at(store.last_index) == self.model[-1]
        assert (store.getCurrentTerm(), store.getVotedForNodeId()) == (self.term, self.vote)
        assert store._content_bytes == sum(len(content) for content, _, _ in self.model)

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.writer.close()
        self.directory.cleanup()


LogModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLogModel = LogModel.TestCase
