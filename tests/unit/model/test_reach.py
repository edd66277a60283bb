"""Who counts as reached: the same for the status, the metrics and the console."""

from __future__ import annotations

import pytest

from metasrv.model.reach import (
    LAG_ENTRIES_MAX,
    contact_bound_ms,
    counted_tolerance,
    expects_contact,
    lag_entries,
    leaders_tolerance,
)
from metasrv.model.types import LogId, PeerProgress, RaftStatus
from metasrv.testing.fake_node import leader_status, sample_status

NEAR, SILENT = 100, 45_000


def leads(second: int | None, third: int | None, lag: int | None = 0) -> RaftStatus:
    """Both members are connected; they were heard so many milliseconds ago, and the third lacks `lag` entries."""
    here = leader_status().last_log_id
    match = None if lag is None else here._replace(index=here.index - lag)
    return leader_status(peers=(PeerProgress(2, here, second, True), PeerProgress(3, match, third, True)))


@pytest.mark.parametrize(
    ("status", "failures"),
    [
        (leads(NEAR, NEAR), 1),
        (leads(NEAR, SILENT), 0),
        (leads(NEAR, None), 0),
        (leads(NEAR, NEAR, LAG_ENTRIES_MAX + 1), 0),
        (leads(NEAR, NEAR, None), 1),
        (leads(SILENT, SILENT), None),
        (sample_status(), None),
    ],
    ids=["all", "stopped process", "never heard", "lags", "new leader", "no majority", "follower"],
)
def test_an_open_connection_does_not_count(status: RaftStatus, failures: int | None) -> None:
    assert leaders_tolerance(status) == failures


def test_a_node_that_does_not_lead_hears_the_others_less_often() -> None:
    assert (contact_bound_ms(400, 600, True), contact_bound_ms(400, 600, False)) == (600, 1000)


def test_a_lag_is_unknown_until_the_member_has_told_this_leader() -> None:
    known = PeerProgress(2, LogId(67, 53_000, 1), NEAR, True)
    assert lag_entries(known, leader_status()) == 67
    assert lag_entries(known._replace(match_log_id=None), leader_status()) is None
    assert lag_entries(known, sample_status()) is None


def test_contact_is_expected_from_all_by_a_leader_and_from_the_leader_by_the_others() -> None:
    def expected(status: RaftStatus) -> list[int]:
        return [peer.node_id for peer in status.peers if expects_contact(peer, status)]

    assert expected(leader_status()) == [2, 3]
    assert expected(sample_status()) == [2]
    assert expected(sample_status(leader_id=None)) == [2, 3]
    assert expected(sample_status(removed="gone")) == []


@pytest.mark.parametrize(
    ("numbers", "spare", "sentence"),
    [
        ((1, 1, 1), 0, "there is one voter: its failure stops the cluster"),
        ((5, 5, 5), 2, "5 of 5 voters answer, 3 are needed: 2 more failures are tolerated"),
        ((5, 5, 4), 1, "5 of 5 voters answer, 3 are needed: one more failure is tolerated"),
        ((3, 2, 2), 0, "2 of 3 voters answer, 2 are needed: one more failure stops the cluster"),
        ((3, 1, 1), -1, "1 of 3 voters answer, 2 are needed: writes are refused"),
        ((1, 0, 0), -1, "0 of 1 voters answer, 1 are needed: writes are refused"),
    ],
)
def test_the_tolerance_is_said_in_words(numbers: tuple[int, int, int], spare: int, sentence: str) -> None:
    found = counted_tolerance(*numbers)
    assert (found.spare, found.counted_text) == (spare, sentence)
