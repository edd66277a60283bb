"""The rules of docs/contract/grpc.md section d, on the state machine itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.testing.hand_clock import HandClock
from tests.support.rule_players import MachineTarget, Player
from tests.support.rule_table import NAMES, RULES
from tests.support.rules import At, Event, Gets, Holds, Lists, Rule, Step, Waits, Watches, puts, record, runs
from tests.support.state_bench import NOW_MS, Bench


@pytest.fixture
def player(tmp_path: Path) -> Iterator[Player]:
    bench = Bench(tmp_path)
    yield Player(MachineTarget(bench, HandClock(0, epoch_ms=NOW_MS)), prefix="")
    bench.machine.close()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_the_state_machine_keeps_the_rule(player: Player, rule: Rule) -> None:
    assert player.play(rule) == len(rule.steps) > 0


PUT = runs(puts("a", 1))
WRONG: dict[str, tuple[Step, ...]] = {
    "number": (runs(puts("a", 2)),),
    "value": (runs((c.Put("a", b"w"), c.PutResponse("a", None, record(1)))),),
    "previous record": (PUT, runs(puts("a", 2))),
    "key": (runs((c.Put("a", b"v"), c.PutResponse("b", None, record(1)))),),
    "log time": (PUT, Waits(5), runs((c.Put("b", b"v"), c.PutResponse("b", None, record(1)._replace(seq=At(2)))))),
    "time to live": (PUT, Gets(("a",), (record(1, ttl_ms=5),))),
    "record in a list": (PUT, Lists("", ())),
    "record of a get": (PUT, Gets(("a",), (None,))),
    "stored key": (PUT, Holds(())),
    "event that is missing": (Watches("a", None, (Event("a", None, record(1)),)),),
    "event that is not expected": (Watches("a", None, ()), PUT),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_noticed(player: Player, name: str) -> None:
    with pytest.raises(AssertionError):
        player.play(Rule(f"a wrong {name}", WRONG[name]))


def test_a_wrong_count_of_numbers_is_noticed(player: Player) -> None:
    with pytest.raises(AssertionError, match="sequence numbers"):
        player.play(Rule("one too many", (PUT,), takes=2))
