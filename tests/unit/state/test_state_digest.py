"""The digest of the records and the hash of the state: kept by entries, equal to what the rows add up to."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry
from metasrv.model.errors import DataDamagedError
from metasrv.model.types import Endpoint, LogId, Member, Membership, Node
from metasrv.state.conversion import convert_state
from metasrv.state.digest import UNKNOWN_DIGEST, UNKNOWN_SIZE, digest_of_sums, record_share
from metasrv.state.format import META_APPLIED, Applied, applied_in, applied_out, seal
from metasrv.state.machine import StateMachine
from metasrv.state.snapshot import verify_snapshot
from tests.support.first_format import write_first_format
from tests.support.state_bench import NOW_MS, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def kept(bench: Bench) -> int:
    return bench.machine._applied.digest


def stored(bench: Bench) -> int:
    return bench.machine._store.sums().digest


def random_entry(source: random.Random, bench: Bench, at_ms: int) -> None:
    def key() -> str:
        return f"{source.choice('ab')}/{source.randrange(30)}"

    def operation() -> c.TransactionOperation:
        kind = source.randrange(10)
        if kind == 0:
            return c.Delete(key(), None)
        if kind == 1:
            return c.DeleteByPrefix(source.choice(("a/1", "b/2", "a/", "none")))
        if kind == 2:
            return c.FetchIncrease("a/counter", 1)
        value = b"v" * source.choice((0, 3, 500, 513, 4096, 4097, 9000))
        ttl_ms = source.choice((None, None, 0, 5, 50))
        return c.Put(key(), value, None, ttl_ms)

    bench.run(*(operation() for _ in range(source.randrange(1, 5))), at_ms=at_ms)


def test_entries_keep_the_digest_that_the_rows_add_up_to(bench: Bench) -> None:
    source = random.Random(18)
    for step in range(400):
        random_entry(source, bench, NOW_MS + 2 * step)
        assert kept(bench) == stored(bench), step
    assert kept(bench) != 0
    before = kept(bench)
    assert bench.reopen()._applied.digest == before
    bench.run(c.DeleteByPrefix("a/"), c.DeleteByPrefix("b/"), at_ms=NOW_MS + 1000)
    assert (kept(bench), bench.machine.key_count) == (0, 0)


def test_the_same_entries_give_the_same_hash_and_another_one_another(tmp_path: Path) -> None:
    hashes = []
    for name, last in (("1.db", b"v"), ("2.db", b"v"), ("3.db", b"w")):
        bench = Bench(tmp_path, name)
        bench.put("a")
        bench.put("b", last)
        hashes.append(bench.machine.state_hash())
        bench.machine.close()
    assert hashes[0] == hashes[1] != hashes[2]


def test_everything_replicated_is_in_the_hash(bench: Bench) -> None:
    machine = bench.machine
    seen = {machine.state_hash()}

    def changed() -> None:
        seen.add(machine.state_hash())

    membership = Membership({1: Member(Endpoint("h", 1), "x")}, {})
    machine.apply_entry(LogId(1, 1, 1), MembershipEntry(1, Membership(), membership))
    changed()
    for command in (
        c.AddNode(Node(1, Endpoint("h", 1), "a", None), False),
        c.SetFeature("dummy", True),
        c.SetClusterSecret("token", b"secret"),
        c.ReplaceSecret("token", b"secret", b"another"),
        c.ReplaceSecret("token", b"another", None),
    ):
        bench.apply(command)
        changed()
    bench.put("a")
    changed()
    assert len(seen) == 8
    position, applied = machine.state_hash(), machine._applied
    for field in ("time_ms", "seq", "key_count", "expire_count", "digest"):
        machine._applied = applied._replace(**{field: getattr(applied, field) + 1})
        assert machine.state_hash() != position, field
    machine._applied = applied
    machine.set_cluster_id("cluster")
    assert machine.state_hash() == position


def test_values_that_are_swapped_between_two_keys_are_noticed() -> None:
    """Checksums alone, added up, can be equal: they are linear."""
    seqs, checksums = (7, 8), (0x00FF00FF, 0xFF00FF00)
    straight = sum(record_share(seq, checksum) for seq, checksum in zip(seqs, checksums, strict=True))
    crossed = sum(record_share(seq, checksum) for seq, checksum in zip(seqs, reversed(checksums), strict=True))
    assert straight != crossed


@pytest.mark.parametrize("seq", [0, 1, 2**31 - 1, 2**31, 2**63 - 1])
@pytest.mark.parametrize("checksum", [0, 1, 2**32 - 1])
def test_sqlite_adds_up_what_python_does(bench: Bench, seq: int, checksum: int) -> None:
    row = ("k", seq, None, None, 0, checksum, b"")
    bench.machine._store.execute("INSERT INTO kv VALUES(?, ?, ?, ?, ?, ?, ?)", row)
    assert stored(bench) == record_share(seq, checksum)
    assert digest_of_sums(0xFFFFFFFF, 0) == 0xFFFFFFFF


# ----------------------------------------------------------------------------- files


def test_a_position_without_a_digest_is_read_and_added_up_when_the_file_is_opened(bench: Bench) -> None:
    bench.put("a")
    bench.put("b", b"x" * 9000)
    digest, applied = kept(bench), bench.machine._applied
    unsized = applied._replace(data_size_bytes=UNKNOWN_SIZE)  # which is stored beside it
    assert applied_in(applied_out(applied)) == unsized
    older = seal((*applied.log_id, *applied[1:-2]))
    assert applied_in(older) == unsized._replace(digest=UNKNOWN_DIGEST)
    bench.machine._store.set_meta(META_APPLIED, older)
    assert bench.reopen()._applied.digest == digest
    bench.put("c")
    assert kept(bench) == stored(bench)


def test_a_converted_file_has_the_digest(bench: Bench, tmp_path: Path) -> None:
    for at in range(50):
        bench.put(f"key/{at}", b"x" * at * 40)
    digest, applied = kept(bench), bench.machine._applied
    bench.machine._store.set_meta(META_APPLIED, seal((*applied.log_id, *applied[1:-2])))
    bench.machine.close()
    path = str(tmp_path / "first.db")
    write_first_format(bench.path, path)
    assert convert_state(path)
    converted = StateMachine.open(path)
    assert converted._applied.digest == converted._store.sums().digest == digest
    converted.close()
    bench.machine = StateMachine.open(bench.path)


def test_a_snapshot_carries_the_digest(bench: Bench, tmp_path: Path) -> None:
    bench.put("a")
    info = bench.snapshot()
    verify_snapshot(info.path, info.sha256)
    other = Bench(tmp_path, "other.db")
    other.machine.install(info.path)
    assert other.machine.state_hash() == bench.machine.state_hash()
    other.machine.close()


def test_a_damaged_record_is_not_taken_over_with_a_snapshot(bench: Bench) -> None:
    """The sender's rows are copied without a look at them, and the digest of the file is of what was copied."""
    bench.put("good")
    bench.put("bad", b"value")
    bench.machine._store.execute("UPDATE kv SET data = ? WHERE key = ?", (b"walue", "bad"))
    info = bench.snapshot()
    with pytest.raises(DataDamagedError, match="key 'bad'"):
        verify_snapshot(info.path, info.sha256)


def test_a_record_that_is_lost_or_of_another_time_is_noticed_at_the_start(bench: Bench) -> None:
    """Each record fits its checksum, and the counts are right."""
    bench.put("a", b"old")
    (old,) = bench.machine._store.execute("SELECT * FROM kv").fetchall()
    bench.put("a", b"new")
    bench.machine.close()
    tool = sqlite3.connect(bench.path)
    tool.execute("INSERT OR REPLACE INTO kv VALUES(?, ?, ?, ?, ?, ?, ?)", old)
    tool.commit()
    tool.close()
    with pytest.raises(DataDamagedError, match="its counters differ"):
        StateMachine.open(bench.path)
    bench.machine = StateMachine.open(str(bench.directory / "new.db"))


def test_an_empty_state_has_the_digest_nought() -> None:
    assert Applied().digest == 0


def test_an_expire_index_of_another_instant_is_found_at_the_start(tmp_path: Path) -> None:
    """As after an older copy of the write-ahead log was put back: pages of two instants, each good by itself."""
    bench = Bench(tmp_path)
    bench.put("lease/1", ttl_ms=10_000)

    def moved() -> bytes:
        bench.machine._store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return Path(bench.path).read_bytes()

    older = moved()
    bench.put("lease/2", ttl_ms=20_000)
    newer = bytearray(moved())
    root, size_bytes = (
        int(bench.machine._store.execute(query).fetchone()[0])
        for query in ("SELECT rootpage FROM sqlite_schema WHERE name = 'expire'", "PRAGMA page_size")
    )
    bench.machine.close()
    page = slice((root - 1) * size_bytes, root * size_bytes)
    newer[page] = older[page]
    Path(bench.path).write_bytes(newer)
    with pytest.raises(DataDamagedError, match="index expire"):
        Bench(tmp_path)


def test_a_registry_of_another_instant_is_found_at_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.apply(c.AddNode(Node(1, Endpoint("one", 1), "one:2", None), False))
    older = bench.machine._store.execute("SELECT node FROM nodes").fetchone()[0]
    bench.apply(c.AddNode(Node(1, Endpoint("moved", 1), "moved:2", None), True))
    bench.reopen()
    bench.machine._store.execute("UPDATE nodes SET node = ?", (older,))
    bench.machine.close()
    with pytest.raises(DataDamagedError, match=r"nodes, features, secrets.*of another instant"):
        Bench(tmp_path)
