"""When a step sees to what can wait."""

from __future__ import annotations

from metasrv.raft.upkeep import UPKEEP_SECONDS, Upkeep


def test_what_can_wait_is_seen_to_after_an_entry_and_once_in_a_while() -> None:
    upkeep = Upkeep()
    assert upkeep.is_due(0, 100.0)
    assert not upkeep.is_due(0, 100.0 + UPKEEP_SECONDS * 0.9)
    assert upkeep.is_due(1, 100.0 + UPKEEP_SECONDS * 0.9)
    assert not upkeep.is_due(1, 100.0 + UPKEEP_SECONDS * 1.8)
    assert upkeep.is_due(1, 100.0 + UPKEEP_SECONDS * 1.9)
