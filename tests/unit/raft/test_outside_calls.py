"""A disk that refuses within a call from outside stops the node, and the caller hears what others hear then."""

from __future__ import annotations

import pytest

from metasrv.model.errors import FatalError, OverloadedError, StoppingError, StorageError
from metasrv.raft.outside_calls import fatal_here


def test_a_fatal_fault_stops_the_node_and_the_caller_gets_stopping() -> None:
    failed: list[FatalError] = []
    fault = StorageError("the disk is full")
    with pytest.raises(StoppingError) as ended, fatal_here(failed.append):
        raise fault
    assert failed == [fault]
    assert ended.value.__cause__ is fault


def test_other_errors_pass() -> None:
    failed: list[FatalError] = []
    with pytest.raises(OverloadedError), fatal_here(failed.append):
        raise OverloadedError("later")
    assert failed == []
