"""The rules of docs/contract/grpc.md section d over the wire, on a node whose clock the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.grpc_thread import ThreadedNode
from tests.support.rule_players import Player, WireTarget, own_prefix
from tests.support.rule_table import NAMES, RULES
from tests.support.rules import Rule

pytestmark = pytest.mark.xdist_group("grpc-rule-table")


@pytest.fixture(scope="module")
def node() -> Iterator[ThreadedNode]:
    started = ThreadedNode()
    yield started
    started.close()


@pytest.fixture
def target(node: ThreadedNode) -> Iterator[WireTarget]:
    node.clock.advance(10)  # past the log time of the rule before, which may have moved the clock back
    made = WireTarget(node.wire, node.clock)
    yield made
    made.close()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_node_keeps_the_rule_to_the_millisecond(target: WireTarget, rule: Rule) -> None:
    assert Player(target, own_prefix()).play(rule) == len(rule.steps) > 0
