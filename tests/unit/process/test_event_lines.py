"""Events that nobody else logs are one line each, with the node and the term."""

from __future__ import annotations

import logging

import pytest

from metasrv.model.events import EventKind, Severity
from metasrv.process.event_ring import EventRing
from metasrv.testing.hand_clock import HandClock


def test_an_event_is_one_line_with_node_and_term(caplog: pytest.LogCaptureFixture) -> None:
    ring = EventRing(HandClock())
    ring.node_id = 3
    with caplog.at_level(logging.INFO, "metasrv.events"):
        ring.tell(EventKind.START, Severity.INFO, "node 3 starts")
        ring.record(EventKind.LEADER, Severity.INFO, "node 1 leads in term 7", 7)
        ring.tell(EventKind.DISK, Severity.CRITICAL, "the disk is full")
        ring.tell(EventKind.CLOCK, Severity.WARNING, "this node's clock is off", 8)
    lines = [(line.levelno, line.getMessage(), vars(line)["node"], vars(line)["term"]) for line in caplog.records]
    assert lines == [
        (logging.INFO, "start: node 3 starts", 3, None),
        (logging.ERROR, "disk: the disk is full", 3, 7),
        (logging.WARNING, "clock: this node's clock is off", 3, 8),
    ]
    assert [event.text for event in ring.after(0)][1] == "node 1 leads in term 7"
