"""Rules of docs/contract/grpc.md section d that only the state machine itself shows; the others are the rule table's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.limits import EXPRESSION_DEPTH_MAX
from metasrv.model.types import KVMeta, SeqV
from metasrv.state.expiry import expire_ms_of
from metasrv.state.operations import sequential_name
from tests.support.state_bench import NOW_MS, Bench

U64 = 2**64 - 1


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def test_the_first_write_is_one_and_the_last_number_is_told(bench: Bench) -> None:
    assert [bench.current("a").seq, bench.current("b").seq] == [1, 2]
    assert bench.machine.last_seq == 2


def test_log_time_is_told_and_never_goes_back(bench: Bench) -> None:
    bench.put("a", at_ms=NOW_MS)
    assert bench.current("b", at_ms=NOW_MS - 1000).meta == KVMeta(None, NOW_MS)
    assert bench.machine.last_time_ms == NOW_MS


@pytest.mark.parametrize(
    ("expire_at", "milliseconds"),
    [
        (0, 0),
        (1, 1000),
        (100_000_000_000, 100_000_000_000_000),
        (100_000_000_001, 100_000_000_001),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2**63 - 1),
        (U64, 2**63 - 1),
    ],
)
def test_the_unit_is_guessed_at_1e11(expire_at: int, milliseconds: int) -> None:
    assert expire_ms_of(expire_at) == milliseconds


@pytest.mark.parametrize("expire_at", [NOW_MS // 1000 + 9, NOW_MS + 9, 2**63 - 1, 2**63, U64])
def test_an_absolute_expiry_is_stored_as_given(bench: Bench, expire_at: int) -> None:
    bench.put("a", expire_at=expire_at)
    bench.reopen()
    assert bench.machine.get("a", NOW_MS) == SeqV(1, b"v", KVMeta(expire_at, NOW_MS))


@pytest.mark.parametrize(
    "command",
    [
        c.RemoveNode(9),
        c.SetFeature("dummy", True),
        c.SetClusterSecret("s", b"x"),
        c.ReplaceSecret("s", None, b"x"),
        c.BranchTransaction(()),
    ],
)
def test_commands_without_keys_sweep_too(bench: Bench, command: c.Command) -> None:
    bench.put("a", ttl_ms=1)
    bench.apply(command, at_ms=NOW_MS + 2)
    assert bench.machine.key_count == 0


def test_a_sweep_forgets_nothing_after_a_restart(bench: Bench) -> None:
    bench.put("a", ttl_ms=1)
    bench.put("b", ttl_ms=100)
    bench.reopen()
    bench.put("c", at_ms=NOW_MS + 50)
    assert bench.keys() == ["b", "c"]


def test_what_has_expired_is_hidden_at_any_later_time(bench: Bench) -> None:
    bench.put("a", expire_at=NOW_MS + 10)
    assert bench.machine.get("a", U64) is None
    assert bench.machine.get_many(["a", "a"], U64) == [None, None]
    assert bench.keys(U64) == []
    assert bench.machine.list_range("", None, None, 5, U64) == []
    assert bench.machine.key_count == 1, "an idle cluster sweeps nothing"


def test_a_tree_is_evaluated_down_to_its_limit(bench: Bench) -> None:
    tree = c.Expression(c.Combine.AND, (), ())
    for _ in range(EXPRESSION_DEPTH_MAX - 1):
        tree = c.Expression(c.Combine.AND, (tree,), ())
    assert bench.apply(c.BranchTransaction((c.Branch(tree, ()),))) == (c.BranchTransactionReply(0, ()),)
    deeper = c.Expression(c.Combine.AND, (tree,), ())
    (reply,) = bench.apply(c.BranchTransaction((c.Branch(deeper, ()),)))
    assert reply == c.ErrorReply(f"the boolean tree is nested more than {EXPRESSION_DEPTH_MAX} levels")


def test_sequential_names() -> None:
    assert sequential_name(1_200_123) == "000_000_000_000_001_200_123"
    assert sequential_name(U64) == "018_446_744_073_709_551_615"


ORDERED = ["", "a", "a\0", "a/", "a/b", "a0", "b", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"]


def test_pages(bench: Bench) -> None:
    for key in ORDERED:
        bench.put(key)
    found, after = [], None
    while page := bench.machine.list_range("a", "\U00010000", after, 2, NOW_MS):
        found += [key for key, _ in page]
        after = page[-1][0]
    assert found == [key for key in ORDERED if "a" <= key < "\U00010000"]
