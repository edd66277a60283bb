"""What a transport may give a node: what was sent to it, in that order and at most once."""

from __future__ import annotations

import pytest

from verification.simulation.deliveries import Deliveries


class Watched:
    """Node 1 sends to node 2."""

    def __init__(self, *payloads: bytes) -> None:
        self.violations: list[str] = []
        self.deliveries = Deliveries(self.violations.append)
        for payload in payloads:
            self.deliveries.sent(1, 2, payload)

    def receive(self, payload: bytes, *, from_id: int = 1, generation: int = 1, life: int = 1) -> None:
        self.deliveries.received(2, life, from_id, generation, payload)


def test_messages_may_be_lost_but_not_reordered() -> None:
    watched = Watched(b"a", b"b", b"c", b"d")
    watched.receive(b"b")
    watched.receive(b"d")
    assert not watched.violations
    watched.receive(b"c")
    assert len(watched.violations) == 1


@pytest.mark.parametrize("payload", [b"a", b"never sent", b""])
def test_no_message_comes_twice_or_from_nowhere(payload: bytes) -> None:
    watched = Watched(b"a")
    watched.receive(b"a")
    watched.receive(payload)
    assert "did not send" in watched.violations[0]


def test_the_same_message_sent_twice_may_come_twice() -> None:
    watched = Watched(b"ping", b"ping")
    watched.receive(b"ping")
    watched.receive(b"ping")
    assert not watched.violations


def test_a_message_of_another_sender_is_noticed() -> None:
    watched = Watched(b"a")
    watched.receive(b"a", from_id=3)
    assert "node 3 did not send" in watched.violations[0]


def test_generations_never_go_back_while_a_process_lives() -> None:
    watched = Watched(b"a", b"b", b"c", b"d")
    watched.receive(b"a", generation=4)
    watched.receive(b"b", generation=1, life=2)
    assert not watched.violations
    watched.receive(b"c", generation=4)
    watched.receive(b"d", generation=3)
    assert "from connection 3, after 4" in watched.violations[0]
