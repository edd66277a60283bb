"""Limits of the cluster: what survives, what a build without them sees, and what a refusal costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from metasrv.model import commands as c
from metasrv.model.errors import TooLargeError
from metasrv.model.limits import READ_ONLY_REASON_CHARACTERS_MAX
from metasrv.model.types import NO_LIMITS, WriteLimits
from metasrv.model.wire import pack
from metasrv.state.command_rules import validate_command
from metasrv.state.format import META_LIMITS, META_SIZE, seal
from metasrv.state.registry import Registry, registry_out
from metasrv.state.write_limits import is_write
from tests.support.state_bench import NOW_MS, Bench

REFUSED = "the cluster is read-only, an operator has turned writes off"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def put(key: str, size_bytes: int) -> c.Upsert:
    return c.Upsert(key, c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, bytes(size_bytes))


def test_a_refused_write_changes_nothing_and_the_rest_of_the_entry_counts(bench: Bench) -> None:
    replies = bench.apply(put("a", 1), c.SetReadOnly("moving"), put("b", 1), c.SetReadOnly(None), put("c", 1))
    assert replies[1:4] == (c.LimitsReply("moving", 0), c.RefusedReply(f"{REFUSED}: moving"), c.LimitsReply(None, 0))
    assert (bench.keys(), bench.machine.last_seq, bench.machine.writes_refused) == (["a", "c"], 2, 1)
    assert bench.machine.limits is NO_LIMITS


def test_limits_are_in_the_file_and_in_snapshots(bench: Bench) -> None:
    bench.apply(put("a", 10), c.SetReadOnly(""), c.SetQuota(10_000))
    limits = WriteLimits("", NOW_MS, 10_000)
    assert bench.reopen().limits == limits
    assert bench.machine.data_size_bytes == 11
    info = bench.snapshot()
    other = Bench(bench.directory, "other.db")
    other.machine.install(info.path)
    assert (other.machine.limits, other.machine.data_size_bytes) == (limits, 11)
    assert other.machine.state_hash() == bench.machine.state_hash()
    assert other.apply(put("b", 1)) == (c.RefusedReply(REFUSED),)
    other.machine.close()


def test_without_limits_nothing_differs_from_a_build_that_does_not_know_them(bench: Bench) -> None:
    assert registry_out(Registry()) == seal(crc32(pack([[], [], []])))
    bench.put("a")
    before = bench.machine.state_hash()
    bench.apply(c.SetQuota(5), c.SetQuota(0), c.SetReadOnly("x"), c.SetReadOnly(None))
    assert bench.machine._store.meta(META_LIMITS) is None
    bench.machine._applied = bench.machine._applied._replace(log_id=bench.machine._applied.log_id._replace(index=1))
    assert bench.machine.state_hash() == before


def test_a_size_that_another_build_left_behind_is_added_up_anew(bench: Bench) -> None:
    bench.put("a", b"12345")
    bench.put("é", b"x" * 9_000)
    digest, size_bytes = bench.machine._applied.digest, bench.machine.data_size_bytes
    assert size_bytes == 6 + 9_002
    bench.machine._store.set_meta(META_SIZE, seal((digest ^ 1, 7)))
    assert bench.reopen().data_size_bytes == size_bytes
    bench.machine._store.set_meta(META_SIZE, seal((digest, size_bytes)))
    assert bench.reopen().data_size_bytes == size_bytes


def test_a_refusal_does_not_apply_the_entry_again(bench: Bench) -> None:
    bench.apply(c.SetQuota(100), put("full", 90))
    statements: list[str] = []
    bench.machine._store.connection.set_trace_callback(statements.append)
    replies = bench.apply(*(put(f"key/{number}", 50) for number in range(200)))
    assert {type(reply) for reply in replies} == {c.RefusedReply}
    assert sum(text.startswith("SAVEPOINT command") for text in statements) == 200
    statements.clear()
    bench.apply(c.SetReadOnly(""))
    bench.apply(*(put(f"key/{number}", 50) for number in range(200)))
    assert len(statements) < 20


def test_the_sentence_of_the_quota_has_the_figures(bench: Bench) -> None:
    (_, _, refused) = bench.apply(c.SetQuota(100), put("a", 80), put("b", 30))
    assert refused == c.RefusedReply(
        "the quota of the cluster is used up: keys and values take 81 bytes, the limit is 100, and this write would make"
        " it 112; what deletes or shrinks is taken"
    )
    swap = c.Transaction((), (), (c.Delete("a"), c.Put("b", bytes(99))), ())
    assert type(bench.apply(swap)[0]) is c.TransactionReply, "what counts is what a whole transaction leaves"
    assert bench.machine.data_size_bytes == 100


def test_what_is_no_write_of_a_client_is_always_taken(bench: Bench) -> None:
    reading = c.Transaction((), (c.Condition("a", c.Target.SEQ, 0, c.Comparison.EQ),), (c.Get("a"),), (c.Get("b"),))
    others = (reading, c.TICK, c.SetFeature("dummy", True), c.ReplaceSecret("user/a", None, b"x"), c.RemoveNode(9))
    replies = bench.apply(c.SetReadOnly("x"), *others)
    assert not any(isinstance(reply, c.RefusedReply | c.ErrorReply) for reply in replies)
    assert is_write(c.BranchTransaction((c.Branch(None, (c.Get("a"),)), c.Branch(None, (c.Delete("a"),)))))


def test_expiry_goes_on_while_the_cluster_is_read_only(bench: Bench) -> None:
    bench.put("lease", ttl_ms=10)
    bench.apply(c.SetReadOnly("x"))
    bench.apply(c.TICK, at_ms=NOW_MS + 11)
    assert (bench.keys(), bench.machine.data_size_bytes) == ([], 0)


def test_a_reason_has_a_limit() -> None:
    validate_command(c.SetReadOnly("é" * READ_ONLY_REASON_CHARACTERS_MAX))
    with pytest.raises(TooLargeError, match="the reason in characters is 201, the limit is 200"):
        validate_command(c.SetReadOnly("x" * (READ_ONLY_REASON_CHARACTERS_MAX + 1)))
