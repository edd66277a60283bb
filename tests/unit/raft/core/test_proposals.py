"""Group commit: every proposal ends as done, not done, or unknown, and batches keep their order (D8, D15)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metasrv.model.codec import encode_command
from metasrv.model.commands import FeatureReply, MatchKind, MatchSeq, Operation, Reply, Upsert
from metasrv.model.entries import RegularEntry, decode_entry, encode_noop_entry, encode_regular_entry
from metasrv.model.errors import NotDoneError, NotLeaderError, OverloadedError, StoppingError, UnknownOutcomeError
from metasrv.model.limits import (
    ENTRY_COMMANDS_MAX,
    ENTRY_SIZE_BYTES_TARGET,
    PROPOSALS_WAITING_BYTES_MAX,
    PROPOSALS_WAITING_MAX,
)
from metasrv.raft.core.log_time import LogTime
from metasrv.raft.core.patience import WRITE_GRACE_SECONDS
from metasrv.raft.core.proposals import (
    PACE_SECONDS_MAX,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    PAUSE_SECONDS_PER_CALLER,
    Proposals,
)
from metasrv.raft.log.store import LogStore
from metasrv.testing.hand_clock import HandClock
from metasrv.tracing.times import RequestTimes
from tests.support.settled import settled_proposals, submit


def _proposals(clock: HandClock | None = None) -> Proposals:
    return settled_proposals(1, LogTime(clock or HandClock(), 0))


def _put(key: str, size_bytes: int = 10) -> Upsert:
    return Upsert(key, MatchSeq(MatchKind.ANY), Operation.UPDATE, b"x" * size_bytes)


def _submit(
    proposals: Proposals, command: Upsert, now: float = 1.0, timeout_seconds: float = 10.0
) -> asyncio.Future[Reply]:
    return submit(proposals, command, encode_command(command), now, timeout_seconds)


def _enter(proposals: Proposals, index: int, term: int) -> RegularEntry:
    batch = proposals.take_batch()
    assert batch is not None
    content, entry, taken = batch
    assert decode_entry(content) == entry
    proposals.entered(index, term, entry, taken)
    return entry


async def test_how_long_a_batch_has_been_in_the_log_is_known_until_it_is_applied() -> None:
    proposals = _proposals()
    _submit(proposals, _put("k"))
    batch = proposals.take_batch()
    assert batch is not None
    proposals.entered(7, 2, batch[1], batch[2], now=3.0)
    assert proposals.took_effect(7, 2, 3.25, 3.5) == 0.25


async def test_replies_go_to_their_proposals_by_position() -> None:
    proposals = _proposals()
    futures = [_submit(proposals, _put(str(i))) for i in range(3)]
    entry = _enter(proposals, 7, 2)
    assert [command.key for command in entry.commands if isinstance(command, Upsert)] == ["0", "1", "2"]
    assert proposals.own_entry(7, 2) is entry
    assert proposals.own_entry(7, 3) is None
    proposals.applied(7, 2, tuple(FeatureReply((str(i),)) for i in range(3)))
    assert [future.result() for future in futures] == [FeatureReply((str(i),)) for i in range(3)]
    assert proposals.pending() == 0


async def test_a_batch_that_lost_its_place_was_not_executed() -> None:
    proposals = _proposals()
    future = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    proposals.applied(7, 3, ())
    with pytest.raises(NotLeaderError):
        future.result()
    assert proposals.failed == 1


async def test_a_batch_whose_place_a_later_one_of_the_same_node_takes_is_open() -> None:
    """It led, lost its entry to another leader, and leads again before anything at that index was committed."""
    proposals = _proposals()
    first = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    second = _submit(proposals, _put("b"))
    entry = _enter(proposals, 7, 4)
    with pytest.raises(UnknownOutcomeError, match="took this write out of this node's log"):
        first.result()
    assert proposals.own_entry(7, 4) is entry
    assert proposals.pending() == 1
    proposals.applied(7, 4, (FeatureReply(("x",)),))
    assert second.result() == FeatureReply(("x",))
    assert proposals.pending() == 0


async def test_what_waits_when_leadership_ends_was_not_executed_but_what_is_in_the_log_is_open() -> None:
    proposals = _proposals()
    in_log = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    waiting = _submit(proposals, _put("b"))
    proposals.not_leader(3)
    with pytest.raises(NotLeaderError):
        waiting.result()
    assert not in_log.done()


async def test_stop_tells_not_done_from_unknown() -> None:
    proposals = _proposals()
    in_log = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    waiting = _submit(proposals, _put("b"))
    proposals.stop(StoppingError())
    with pytest.raises(UnknownOutcomeError):
        in_log.result()
    with pytest.raises(StoppingError):
        waiting.result()


async def test_a_snapshot_over_a_pending_write_leaves_it_unknown() -> None:
    proposals = _proposals()
    covered = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    later = _submit(proposals, _put("b"))
    _enter(proposals, 8, 2)
    proposals.state_replaced(7)
    with pytest.raises(UnknownOutcomeError):
        covered.result()
    assert not later.done()


async def test_d8_a_caller_that_went_away_changes_nothing_for_the_others() -> None:
    proposals = _proposals()
    gone, stays = _submit(proposals, _put("a")), _submit(proposals, _put("b"))
    _enter(proposals, 7, 2)
    gone.cancel()
    proposals.applied(7, 2, (FeatureReply(("a",)), FeatureReply(("b",))))
    assert stays.result() == FeatureReply(("b",))


async def test_a_proposal_whose_deadline_passed_never_enters_the_log() -> None:
    proposals = _proposals()
    overdue, gone = _submit(proposals, _put("a"), 1.0, 0.5), _submit(proposals, _put("b"), 1.0, 0.6)
    gone.cancel()
    proposals.expire(1.499, True)
    assert not overdue.done()
    proposals.expire(1.5, True)
    with pytest.raises(NotDoneError, match="not executed") as caught:
        overdue.result()
    assert not isinstance(caught.value, NotLeaderError)
    assert proposals.take_batch() is None
    assert proposals.pending() == 0


async def test_a_proposal_in_the_log_whose_deadline_passed_is_open() -> None:
    proposals = _proposals()
    short, long = _submit(proposals, _put("a"), 1.0, 0.5), _submit(proposals, _put("b"), 1.0, 2.0)
    _enter(proposals, 7, 2)
    proposals.expire(1.6, True)
    with pytest.raises(UnknownOutcomeError, match="may still take effect"):
        short.result()
    assert not long.done()
    proposals.expire(2.9, True)
    assert not long.done()
    proposals.expire(3.0, True)
    with pytest.raises(UnknownOutcomeError):
        long.result()
    assert proposals.failed == 2


async def test_a_write_that_was_answered_at_its_deadline_is_no_longer_pending() -> None:
    """Another leader may have taken its entry out of the log: then nothing is ever applied at its index (S13)."""
    proposals = _proposals()
    early, late = _submit(proposals, _put("a"), 1.0, 1.0), _submit(proposals, _put("b"), 1.0, 2.0)
    _enter(proposals, 7, 2)
    proposals.expire(2.5, leads=True)
    assert early.done()
    assert not late.done()
    assert proposals.pending() == 2
    proposals.expire(3.5, leads=True)
    with pytest.raises(UnknownOutcomeError):
        late.result()
    assert proposals.pending() == 0
    proposals.applied(7, 2, (FeatureReply(()), FeatureReply(())))
    assert proposals.failed == 2


async def test_a_leader_goes_on_from_the_times_that_its_log_holds(tmp_path: Path) -> None:
    """A leader whose clock is behind took entries of an earlier leader into its log, which it has not applied yet."""
    clock = HandClock(5.0)
    proposals = _proposals(clock)
    entries = [(encode_noop_entry(1), 2, 1), (encode_regular_entry(9_000, 1, []), 3, 1), (encode_noop_entry(2), 4, 2)]
    log = LogStore.open(str(tmp_path / "raft.db"), create_entries=[(b"\x01", 1, 0), *entries])
    _submit(proposals, _put("a"))
    assert _enter(proposals, 7, 2).time_ms == 5_000
    proposals.lead(log, applied_index=1)
    _submit(proposals, _put("b"))
    assert _enter(proposals, 8, 2).time_ms == 9_000


async def test_an_entry_ends_at_its_limits() -> None:
    proposals = _proposals()
    for i in range(ENTRY_COMMANDS_MAX + 1):
        _submit(proposals, _put(str(i)))
    assert len(_enter(proposals, 1, 1).commands) == ENTRY_COMMANDS_MAX
    assert len(_enter(proposals, 2, 1).commands) == 1
    for _ in range(2):
        _submit(proposals, _put("big", ENTRY_SIZE_BYTES_TARGET))
    assert len(_enter(proposals, 3, 1).commands) == 1  # one command alone may be larger
    proposals.take_batch()
    around = len(encode_command(_put("half", 2**16))) - 2**16
    for past, together in ((0, 2), (1, 1)):
        for extra in (0, past):
            _submit(proposals, _put("half", ENTRY_SIZE_BYTES_TARGET // 2 - around + extra))
        assert len(_enter(proposals, 5 + past, 1).commands) == together


async def test_the_queue_is_bounded() -> None:
    proposals = _proposals()
    for i in range(PROPOSALS_WAITING_MAX):
        _submit(proposals, _put(str(i)))
    with pytest.raises(OverloadedError, match=str(PROPOSALS_WAITING_MAX)):
        _submit(proposals, _put("one more"))


async def test_the_size_of_what_waits_is_bounded() -> None:
    proposals = _proposals()
    encoded = bytes(PROPOSALS_WAITING_BYTES_MAX // 8)
    for _ in range(8):
        submit(proposals, _put("large"), encoded, 1.0, 10.0)
    with pytest.raises(OverloadedError, match=str(PROPOSALS_WAITING_BYTES_MAX)):
        submit(proposals, _put("small"), b"x", 1.0, 10.0)
    proposals.take_batch()
    submit(proposals, _put("small"), b"x", 1.0, 10.0)


async def test_a_write_in_the_log_outlives_its_leader_for_a_moment_only() -> None:
    proposals = _proposals()
    future = _submit(proposals, _put("a"))
    _enter(proposals, 7, 2)
    proposals.expire(2.0, False)
    proposals.expire(2.0 + WRITE_GRACE_SECONDS - 0.01, False)
    proposals.expire(2.0 + WRITE_GRACE_SECONDS, True)  # it leads again: the time starts anew
    proposals.expire(5.0, False)
    proposals.expire(5.0 + WRITE_GRACE_SECONDS - 0.01, False)
    assert not future.done()
    proposals.expire(5.0 + WRITE_GRACE_SECONDS, False)
    with pytest.raises(UnknownOutcomeError, match="no longer leads"):
        future.result()
    assert proposals.pending() == 0
    proposals.applied(7, 2, (FeatureReply(()),))  # it took effect after all, and nobody is told twice
    assert proposals.pending() == 0


async def test_a_lone_proposal_leaves_at_once() -> None:
    proposals = _proposals()
    for index in range(7, 10):
        _submit(proposals, _put("a"), now=index)
        assert proposals.seconds_to_wait(index) == 0.0
        _enter(proposals, index, 1)
        proposals.applied(index, 1, (FeatureReply(()),))


async def test_a_batch_leaves_when_its_callers_pause() -> None:
    proposals = _proposals()
    now, pause = 1.0, PAUSE_SECONDS_MIN + 20 * PAUSE_SECONDS_PER_CALLER
    for i in range(20):
        _submit(proposals, _put(str(i)), now)
        now += pause / 4
    last = now - pause / 4
    assert 0.0 < proposals.seconds_to_wait(now) < pause
    assert proposals.seconds_to_wait(last + pause) == 0.0
    assert len(_enter(proposals, 7, 1).commands) == 20


async def test_the_pause_grows_with_the_callers_up_to_a_bound() -> None:
    for callers in (2, 16, 64, 160, 161, 200):
        proposals = _proposals()
        for i in range(callers):
            _submit(proposals, _put(str(i)), 1.0)
        pause = min(PAUSE_SECONDS_MIN + callers * PAUSE_SECONDS_PER_CALLER, PAUSE_SECONDS_MAX)
        assert proposals.seconds_to_wait(1.0) == pytest.approx(pause)
        assert 0.0002 < pause <= 0.001


async def test_a_batch_does_not_wait_for_ever_while_callers_come() -> None:
    proposals = _proposals()
    now = 1.0
    _submit(proposals, _put("first"), now)
    _submit(proposals, _put("second"), now)
    while proposals.seconds_to_wait(now) > 0.0:
        _submit(proposals, _put(str(now)), now)
        now += PAUSE_SECONDS_MIN / 4
    assert now - 1.0 == pytest.approx(PACE_SECONDS_MAX, abs=PAUSE_SECONDS_MAX)


async def test_a_full_batch_leaves_at_once() -> None:
    proposals = _proposals()
    for i in range(ENTRY_COMMANDS_MAX):
        _submit(proposals, _put(str(i)), 1.0)
    assert proposals.seconds_to_wait(1.0) == 0.0


async def test_one_caller_who_is_left_soon_waits_for_nobody() -> None:
    proposals = _proposals()
    for i in range(40):
        _submit(proposals, _put(str(i)), now=1.0)
    _enter(proposals, 7, 1)
    proposals.applied(7, 1, tuple(FeatureReply(()) for _ in range(40)))
    now, waited = 3.0, []
    for index in range(8, 18):
        _submit(proposals, _put("alone"), now)
        waited.append(proposals.seconds_to_wait(now))
        now += waited[-1] + 1.0
        _enter(proposals, index, 1)
        proposals.applied(index, 1, (FeatureReply(()),))
    assert waited[0] == pytest.approx(PAUSE_SECONDS_MIN + 40 * PAUSE_SECONDS_PER_CALLER)
    assert waited[-1] == 0.0


async def test_the_writes_of_a_batch_share_its_stamps() -> None:
    proposals = _proposals()
    times = [RequestTimes(1.0), RequestTimes(1.0)]
    futures = [
        submit(proposals, command, encode_command(command), 1.0, 10.0, stamps)
        for command, stamps in zip((_put("a"), _put("b"), _put("c")), (*times, None), strict=True)
    ]
    batch = proposals.take_batch()
    assert batch is not None
    proposals.entered(7, 2, batch[1], batch[2], 1.5)
    proposals.synced(1.75)
    proposals.synced(9.0)
    proposals.took_effect(7, 2, 2.0, 2.25)
    assert proposals.took_effect(7, 3, 9.0, 9.0) is None
    assert proposals.took_effect(8, 2, 9.0, 9.0) is None
    proposals.applied(7, 2, tuple(FeatureReply((str(i),)) for i in range(3)))
    assert [future.result() for future in futures] == [FeatureReply((str(i),)) for i in range(3)]
    shared = times[0].batch
    assert shared is not None
    assert shared is times[1].batch
    stamps = (shared.index, shared.term, shared.taken_at, shared.synced_at, shared.committed_at, shared.applied_at)
    assert stamps == (7, 2, 1.5, 1.75, 2.0, 2.25)
