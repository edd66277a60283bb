"""Applying: positions, totality, rollback, determinism, registry, and what survives a restart (invariants 2, 3, 9)."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry, NoopEntry, RegularEntry
from metasrv.model.errors import DataDamagedError, InvariantError, StorageError
from metasrv.model.types import ZERO_LOG_ID, Endpoint, LogId, Member, Membership, Node, SeqV
from metasrv.state import cached_store, effects
from metasrv.state.machine import StateMachine
from tests.support.state_bench import NOW_MS, Bench, dump


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def node(node_id: int, port: int = 28103) -> Node:
    return Node(node_id, Endpoint("host", port), "0.0.0.0:9191", f"host:{port}")


# ----------------------------------------------------------------------------- positions


def test_a_new_state_is_empty(bench: Bench) -> None:
    machine = bench.machine
    assert machine.last_applied == ZERO_LOG_ID
    assert (machine.last_seq, machine.last_time_ms, machine.key_count, machine.expire_count) == (0, 0, 0, 0)
    assert (dict(machine.nodes), machine.features, machine.membership) == ({}, (), Membership())
    assert (machine.membership_log_id, machine.cluster_id, machine.secrets.get("s")) == (ZERO_LOG_ID, None, None)
    assert machine.installed_tail() is None
    assert machine.file_sizes().database_bytes > 0


@pytest.mark.parametrize("index", [0, 1, 3, 4])
def test_only_the_next_entry_is_applied(bench: Bench, index: int) -> None:
    bench.put("a")
    with pytest.raises(InvariantError, match="not the next one"):
        bench.machine.apply_entry(LogId(1, index, 1), RegularEntry(NOW_MS, 1, ()))
    assert bench.machine.last_applied == LogId(1, 1, 1)


def test_a_term_never_goes_back(bench: Bench) -> None:
    bench.apply(term=5)
    with pytest.raises(InvariantError):
        bench.apply(term=4)


def test_every_kind_of_entry_moves_the_position_and_survives_a_restart(bench: Bench) -> None:
    membership = Membership({1: Member(Endpoint("h", 1), "x")}, {2: Member(Endpoint("::1", 2), "y")})
    assert bench.machine.apply_entry(LogId(1, 1, 0), NoopEntry(0)) == ()
    assert bench.machine.apply_entry(LogId(2, 2, 7), MembershipEntry(7, Membership(), membership)) == ()
    bench.put("a", ttl_ms=5)
    bench.apply(c.AddNode(node(2), False), c.AddNode(node(1), False), c.SetFeature("dummy", True))
    bench.apply(c.SetClusterSecret("token", b"\0secret"))
    bench.machine.set_cluster_id("cluster")

    def facts() -> list[object]:
        machine = bench.machine
        return [
            machine.last_applied,
            machine.last_time_ms,
            machine.last_seq,
            machine.key_count,
            machine.expire_count,
            machine.membership,
            machine.membership_log_id,
            list(machine.nodes.items()),
            machine.features,
            machine.secrets.get("token"),
            machine.cluster_id,
        ]

    before = facts()
    assert before[0] == LogId(2, 5, 1)
    assert before[5:7] == [membership, LogId(2, 2, 7)]
    bench.reopen()
    assert facts() == before


def test_noop_and_membership_entries_sweep_nothing(bench: Bench) -> None:
    bench.put("a", ttl_ms=0)
    bench.machine.apply_entry(LogId(1, 2, 1), NoopEntry(1))
    bench.machine.apply_entry(LogId(1, 3, 1), MembershipEntry(1, Membership(), Membership()))
    assert bench.machine.key_count == 1


def test_an_entry_without_commands_keeps_its_time(bench: Bench) -> None:
    bench.put("a", ttl_ms=1)
    assert bench.apply(at_ms=NOW_MS + 100) == ()
    assert (bench.machine.last_time_ms, bench.machine.key_count) == (NOW_MS + 100, 1)


@pytest.mark.parametrize("time_ms", [2**63 - 1, 2**63, 2**64 - 1])
def test_the_largest_times_are_stored(bench: Bench, time_ms: int) -> None:
    assert bench.current("a", at_ms=time_ms, ttl_ms=2**64 - 1).meta == (2**64 - 1, 2**63 - 1)
    bench.reopen()
    assert bench.machine.last_time_ms == 2**63 - 1
    assert bench.machine.get("a", 2**64 - 1) is not None


def test_replay_goes_on_exactly_behind_what_is_there(tmp_path: Path) -> None:
    """A crash loses at most whole entries; replaying the log from last applied gives the same state."""
    entries = [RegularEntry(NOW_MS + at, 1, (c.Transaction((), (), (c.FetchIncrease("n", 1),), ()),)) for at in range(30)]
    reference, crashed = Bench(tmp_path, "reference.db"), Bench(tmp_path, "crashed.db")
    for index, entry in enumerate(entries, 1):
        reference.machine.apply_entry(LogId(1, index, 1), entry)
    for _ in range(6):
        start = crashed.machine.last_applied.index
        for index in range(start + 1, start + 6):
            crashed.machine.apply_entry(LogId(1, index, 1), entries[index - 1])
        crashed.machine._store.close()  # what is not committed is lost, as a kill leaves it
        crashed.machine = StateMachine.open(crashed.path)
    assert crashed.value("n") == b"30"
    assert dump(crashed.path) == dump(reference.path)
    reference.machine.close()
    crashed.machine.close()


def test_the_same_entries_give_the_same_state_byte_for_byte(tmp_path: Path) -> None:
    """However the node got there: with watchers, restarts, a cold cache (invariant 2)."""
    chance = random.Random(7)
    first, second = Bench(tmp_path, "first.db"), Bench(tmp_path, "second.db")
    for step in range(200):
        key = f"k/{chance.randrange(20)}"
        others: list[c.Command] = [
            c.Transaction((), (), (c.DeleteByPrefix(key),), ()),
            c.Transaction((), (), (c.PutSequential("s/", "n", b"x", None, 9),), ()),
            c.AddNode(node(chance.randrange(5), step), chance.random() < 0.5),
            c.RemoveNode(chance.randrange(5)),
            c.SetFeature(f"f{chance.randrange(3)}", chance.random() < 0.5),
            c.SetClusterSecret(f"s{chance.randrange(3)}", bytes([step])),
            c.ReplaceSecret(f"s{chance.randrange(3)}", bytes([step - 1]) if step % 3 else None, bytes([step])),
        ]
        put = c.Put(key, bytes([step]), ttl_ms=chance.choice([None, 3, 50]))
        commands = (c.Transaction((), (), (put,), ()), chance.choice(others))
        replies = first.apply(*commands, at_ms=NOW_MS + step * 2)
        if step == 50:
            second.machine.watches.subscribe("", "\U0010ffff")
        if step % 60 == 0:
            second.reopen()
        second.machine._store.forget()
        assert second.apply(*commands, at_ms=NOW_MS + step * 2) == replies
    first.machine.close()
    second.machine.close()
    assert dump(first.path) == dump(second.path)


# ----------------------------------------------------------------------------- faults


def test_a_full_disk_changes_nothing_and_is_named(bench: Bench) -> None:
    bench.put("a", b"before")
    bench.apply(c.AddNode(node(1), False))
    machine = bench.machine
    pages = machine._store.execute("PRAGMA page_count").fetchone()[0]
    machine._store.execute(f"PRAGMA max_page_count = {pages + 2}")
    before = (machine.last_applied, machine.last_seq, machine.key_count, machine.last_time_ms, dict(machine.nodes))
    big = c.Transaction((), (), (c.Put("a", b"after"), c.Put("b", bytes(100_000))), ())
    for _ in range(2):
        with pytest.raises(StorageError, match=r"state\.db.*full"):
            bench.apply(c.AddNode(node(2), False), big, at_ms=NOW_MS + 5)
        after = (machine.last_applied, machine.last_seq, machine.key_count, machine.last_time_ms, dict(machine.nodes))
        assert after == before
        assert bench.value("a") == b"before"
        assert machine.get("b", NOW_MS) is None
    machine._store.execute("PRAGMA max_page_count = 1000000")
    bench.apply(big)
    assert bench.value("a") == b"after"
    assert (bench.reopen() and bench.value("b")) == bytes(100_000)


def test_a_failed_commit_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a", b"before")
    machine = bench.machine

    def refuse(_store: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(cached_store.CachedStore, "commit", refuse)
        with pytest.raises(StorageError, match="disk I/O error"):
            bench.put("a", b"after")
        with pytest.raises(StorageError):
            machine.apply_entry(LogId(1, 2, 1), MembershipEntry(1, Membership(), Membership({}, {})))
    assert bench.value("a") == b"before"
    assert (machine.last_applied.index, machine.last_seq) == (1, 1)
    bench.put("a", b"again")
    assert (bench.reopen() and bench.value("a")) == b"again"


def test_an_impossible_command_is_answered_and_changes_nothing(bench: Bench) -> None:
    deep = c.Expression(c.Combine.AND, (), ())
    for _ in range(100):
        deep = c.Expression(c.Combine.AND, (deep,), ())
    late = c.BranchTransaction((c.Branch(None, (c.Put("gone", b"x"),) * 3), c.Branch(deep, ())))
    too_deep = c.Transaction((c.Branch(deep, ()),), (), (c.Put("never", b"x"),), ())
    put = c.Transaction((), (), (c.Put("a", b"x"),), ())
    replies = bench.apply(put, too_deep, late, put)
    assert isinstance(replies[1], c.ErrorReply)
    assert "nested" in replies[1].text
    assert [type(reply) for reply in replies] == [
        c.TransactionReply,
        c.ErrorReply,
        c.BranchTransactionReply,
        c.TransactionReply,
    ]
    assert bench.keys() == ["a", "gone"]
    assert bench.machine.last_seq == 5, "one, three, one; the refused one took none"


def _wrong(kind: Any, *fields: object) -> c.TransactionOperation:
    """An operation with fields of other types than it says."""
    made: c.TransactionOperation = kind(*fields)
    return made


@pytest.mark.parametrize(
    "operation",
    [
        _wrong(c.Put, "k", "text"),
        _wrong(c.Put, 7, b"x"),
        _wrong(c.Put, "k", b"x", "soon"),
        c.Put("\ud800", b"x"),
        _wrong(c.FetchIncrease, "k", "one"),
    ],
)
def test_apply_is_total_even_for_what_no_decoder_lets_through(bench: Bench, operation: c.TransactionOperation) -> None:
    bad = c.Transaction((), (), (c.Put("first", b"x"), operation), ())
    good = c.Transaction((), (), (c.Put("a", b"x"),), ())
    replies = bench.apply(bad, good)
    assert isinstance(replies[0], c.ErrorReply)
    assert bench.keys() == ["a"]


def test_replies_of_one_entry_have_a_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "ENTRY_REPLIES_SIZE_BYTES_MAX", 1000)
    bench.put("a", bytes(500))
    bench.put("one", b"1")
    get = c.Get("a")
    assert isinstance(bench.apply(c.Transaction((), (), (get, get), ()))[0], c.TransactionReply)
    (reply,) = bench.apply(c.Transaction((), (), (c.Put("b", b"x"), get, get, c.Get("one")), ()))
    assert isinstance(reply, c.ErrorReply)
    assert bench.keys() == ["a", "one"]


def test_a_flipped_byte_of_a_record_is_never_served(bench: Bench) -> None:
    for key in ("a", "b"):
        bench.put(key, b"valuable", ttl_ms=1000)
    bench.machine.close()
    damage = sqlite3.connect(bench.path)
    damage.execute("UPDATE kv SET data = CAST('Valuable' AS BLOB) WHERE key = 'b'")
    damage.commit()
    damage.close()
    machine = bench.machine = StateMachine.open(bench.path)
    assert bench.value("a") == b"valuable"
    for read in (
        lambda: machine.get("b", NOW_MS),
        lambda: machine.list_prefix("", None, NOW_MS),
        lambda: bench.run(c.Get("b")),
    ):
        with pytest.raises(DataDamagedError, match=r"key 'b'.*checksum"):
            read()
    assert machine.last_applied.index == 2


# ----------------------------------------------------------------------------- registry


def test_nodes(bench: Bench) -> None:
    assert bench.apply(c.AddNode(node(2), False)) == (c.NodeReply(None, node(2)),)
    assert bench.apply(c.AddNode(node(2, 5), False)) == (c.NodeReply(node(2), node(2)),)
    assert bench.apply(c.AddNode(node(2, 5), True)) == (c.NodeReply(node(2), node(2, 5)),)
    large = node(2**64 - 1)
    assert bench.apply(c.AddNode(large, False), c.AddNode(node(10), False))[0] == c.NodeReply(None, large)
    assert list(bench.machine.nodes) == [2, 10, 2**64 - 1]
    assert list(bench.reopen().nodes.values()) == [node(2, 5), node(10), large]
    assert bench.apply(c.RemoveNode(2), c.RemoveNode(2)) == (c.NodeReply(node(2, 5), None), c.NodeReply(None, None))
    assert list(bench.reopen().nodes) == [10, 2**64 - 1]


def test_features(bench: Bench) -> None:
    assert c.KNOWN_FEATURES == ("dummy", "dummy_feature2", "users", "migration", "write-limits")
    replies = bench.apply(*(c.SetFeature(name, True) for name in ("dummy_feature2", "dummy", "dummy")))
    assert replies[-1] == c.FeatureReply(("dummy", "dummy_feature2")) == replies[-2]
    without = bench.apply(c.SetFeature("dummy", False), c.SetFeature("dummy", False))
    assert without[1] == c.FeatureReply(("dummy_feature2",))
    assert bench.reopen().features == ("dummy_feature2",)


def test_secrets_the_first_writer_wins(bench: Bench) -> None:
    assert bench.apply(c.SetClusterSecret("a", b"1"), c.SetClusterSecret("a", b"2")) == (c.SecretReply(b"1"),) * 2
    assert bench.reopen().secrets.get("a") == b"1"


def test_a_secret_is_replaced_only_if_it_is_the_expected_one(bench: Bench) -> None:
    replaced = c.ReplaceSecretReply
    replies = bench.apply(
        c.ReplaceSecret("a", None, b"1"),
        c.ReplaceSecret("a", None, b"2"),
        c.ReplaceSecret("a", b"2", None),
        c.ReplaceSecret("a", b"1", b"3"),
        c.ReplaceSecret("b", None, b"4"),
        c.ReplaceSecret("b", b"4", None),
        c.ReplaceSecret("b", b"4", b"5"),
        c.ReplaceSecret("b", None, None),
    )
    assert replies == (
        replaced(True, b"1"),
        replaced(False, b"1"),
        replaced(False, b"1"),
        replaced(True, b"3"),
        replaced(True, b"4"),
        replaced(True, None),
        replaced(False, None),
        replaced(True, None),
    )
    assert dict(bench.reopen().secrets) == {"a": b"3"}


def test_the_mapping_of_secrets_is_another_one_after_each_change_and_only_then(bench: Bench) -> None:
    bench.apply(c.ReplaceSecret("a", None, b"1"))
    before = bench.machine.secrets
    bench.apply(c.ReplaceSecret("a", None, b"2"), c.ReplaceSecret("a", b"1", b"1"), c.RemoveNode(9))
    bench.put("k")
    assert bench.machine.secrets is before
    bench.apply(c.ReplaceSecret("a", b"1", b"2"))
    assert bench.machine.secrets is not before
    assert before["a"] == b"1"


def test_a_cluster_id_is_set_once(bench: Bench) -> None:
    bench.machine.set_cluster_id("one")
    bench.machine.set_cluster_id("one")
    with pytest.raises(InvariantError, match="cluster one"):
        bench.reopen().set_cluster_id("two")


# ----------------------------------------------------------------------------- the record cache


def test_the_cache_is_bounded_and_always_right(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_store, "CACHE_SIZE_BYTES_MAX", 8_000)
    monkeypatch.setattr(cached_store, "CACHED_RECORD_SIZE_BYTES_MAX", 100)
    chance = random.Random(3)
    expected: dict[str, bytes] = {}
    for step in range(600):
        key = f"k{chance.randrange(40)}"
        if chance.random() < 0.2:
            bench.run(c.Delete(key))
            expected.pop(key, None)
        else:
            expected[key] = bytes([step % 256]) * chance.choice([1, 100, 101])
            bench.put(key, expected[key])
        probe = f"k{chance.randrange(40)}"
        found = bench.machine.get(probe, NOW_MS)
        assert (None if found is None else found.data) == expected.get(probe)
    store: Any = bench.machine._store
    assert 0 < len(store._young) + len(store._old) < 30
    assert all(len(record.data) <= 100 for record in [*store._young.values(), *store._old.values()] if record)


# ----------------------------------------------------------------------------- readers


def test_a_reader_sees_one_instant(bench: Bench) -> None:
    bench.put("a")
    bench.put("b", ttl_ms=10)
    reader = bench.machine.open_reader()
    bench.run(c.Delete("a"), c.Put("c", b"later"), at_ms=NOW_MS + 50)
    with reader:
        assert [key for key, _ in reader.records()] == ["a", "b"]
        assert list(reader.expire_index()) == [(NOW_MS + 10, 2, "b")]
        assert (reader.last_applied.index, reader.last_seq, reader.key_count, reader.expire_count) == (2, 2, 2, 1)
        assert reader.get("b") is not None
        assert reader.get("b", NOW_MS + 11) is None
        assert reader.list_range("", None, "a", 10, NOW_MS + 11) == []
        assert [len(page) for page in reader.pages(now_ms=NOW_MS + 11)] == [1]
    assert bench.keys() == ["c"]


def test_a_reader_can_not_write(bench: Bench) -> None:
    with bench.machine.open_reader() as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._store.delete("a", SeqV(1, b"", None))


def test_readers_page_by_count_and_size(bench: Bench) -> None:
    bench.run(*(c.Put(f"{at:05d}", b"x", ttl_ms=at) for at in range(1300)))
    bench.run(*(c.Put(f"big/{at}", bytes(700_000)) for at in range(4)))
    with bench.machine.open_reader() as reader:
        assert [len(page) for page in reader.pages(end="b")] == [512, 512, 276]
        assert [len(page) for page in reader.pages("b")] == [2, 2]
        assert len(list(reader.records())) == 1304
        assert [item[1] for item in reader.expire_index()] == list(range(1, 1301))


def test_the_sweep_uses_its_index(bench: Bench) -> None:
    for statement in (
        "DELETE FROM kv WHERE expire_ms < 5",
        "SELECT key FROM kv WHERE expire_ms < 5 ORDER BY expire_ms, seq",
        "SELECT key FROM kv WHERE expire_ms IS NOT NULL AND (expire_ms, seq) > (1, 1) ORDER BY expire_ms, seq",
    ):
        plan = " ".join(row[3] for row in bench.machine._store.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "INDEX expire" in plan
        assert "TEMP B-TREE" not in plan
