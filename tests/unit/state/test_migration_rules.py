"""Moving another cluster's records into this one: who may begin, what is stored, what is refused meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.model import commands as c
from metasrv.model.errors import CodecError, InvalidRequestError, TooLargeError
from metasrv.model.limits import KEY_SIZE_BYTES_MAX, MIGRATED_RECORDS_MAX, VALUE_SIZE_BYTES_MAX
from metasrv.model.migration import MIGRATION_NAME, migration_in
from metasrv.model.migration import MigratedRecord as Record
from metasrv.model.migration import MigrationStep as Step
from metasrv.model.types import I64_MAX, KVMeta, SeqV
from metasrv.state.command_rules import validate_command
from tests.support.state_bench import NOW_MS, Bench

LARGE = b"x" * 2000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.machine.close()


def step(bench: Bench, kind: Step, run: int = 1, **fields: object) -> c.MigrationReply:
    (reply,) = bench.apply(c.Migrate(kind, run, **fields))  # type: ignore[arg-type]
    assert isinstance(reply, c.MigrationReply), reply
    return reply


def begin(bench: Bench, run: int = 1) -> None:
    assert step(bench, Step.BEGIN, run, source="old").refused == ""


def store(bench: Bench, *records: Record, run: int = 1, last_seq: int = 0) -> c.MigrationReply:
    return step(bench, Step.STORE, run, records=records, last_seq=last_seq)


def records(bench: Bench) -> dict[str, SeqV]:
    return dict(bench.machine.list_prefix("", None, 0))


# ----------------------------------------------------------------------------- the life of a migration


def test_records_arrive_as_they_were_and_the_counter_goes_above_them(bench: Bench) -> None:
    begin(bench)
    old, seconds = NOW_MS - 50_000, (NOW_MS + 60_000) // 1000
    store(
        bench,
        Record("a", 70, b"1", None, old),
        Record("b", 12, LARGE, seconds, old + 1),
        Record("expired", 15, b"", NOW_MS - 1, 0),
    )
    assert bench.machine.list_prefix("", None, 0) == [
        ("a", SeqV(70, b"1", KVMeta(None, old))),
        ("b", SeqV(12, LARGE, KVMeta(seconds, old + 1))),
        ("expired", SeqV(15, b"", KVMeta(NOW_MS - 1, 0))),
    ]
    assert (bench.machine.last_seq, bench.machine.key_count, bench.machine.expire_count) == (70, 3, 2)
    assert store(bench, last_seq=90).last_seq == 90
    assert step(bench, Step.FINISH, count=3, last_seq=99) == c.MigrationReply("", "", 0, 99, 2)
    assert list(records(bench)) == ["a", "b"], "what had expired goes with the end"
    assert bench.current("c").seq == 100
    assert bench.machine.rows_fit()
    bench.reopen()
    assert bench.machine.rows_fit()


def test_only_an_empty_cluster_begins(bench: Bench) -> None:
    bench.put("a")
    reply = step(bench, Step.BEGIN, source="old")
    assert reply.refused == "only an empty cluster takes the records of another, and this one has 1 keys"
    assert (reply.source, reply.key_count) == ("", 1)
    bench.run(c.Delete("a"))
    begin(bench)
    assert step(bench, Step.BEGIN, 5, source="other").refused.startswith("this cluster already takes the records of cl")
    assert step(bench, Step.BEGIN, 1, source="old").refused == "run 1 leads the migration, and run 1 is not newer"


def test_a_newer_run_takes_over_and_what_comes_late_from_the_earlier_one_is_refused(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("a", 1, b"1"))
    begin(bench, run=7)
    reply = store(bench, Record("a", 2, b"late"), run=1)
    assert (reply.refused, reply.run, reply.source) == ("run 7 leads the migration now, not run 1", 7, "old")
    assert records(bench)["a"].data == b"1"


@pytest.mark.parametrize("kind", [Step.STORE, Step.CLEAR, Step.FINISH, Step.ABORT])
def test_no_step_is_taken_without_a_migration(bench: Bench, kind: Step) -> None:
    bench.put("a")
    assert step(bench, kind, records=(Record("b", 9, b""),), count=1).refused == "no migration is under way"
    assert list(records(bench)) == ["a"]


def test_it_ends_with_the_number_of_keys_that_was_compared_or_not_at_all(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("a", 1, b""), Record("b", 2, b""))
    assert step(bench, Step.FINISH, count=1).refused == "this cluster has 2 keys, and 1 are to be there"
    assert step(bench, Step.ABORT).refused == "this cluster has 2 keys, and 0 are to be there"
    assert step(bench, Step.CLEAR, count=1).key_count == 1
    assert step(bench, Step.CLEAR, count=9).key_count == 0
    assert step(bench, Step.ABORT).source == ""
    bench.put("a")


def test_the_marker_survives_a_restart_and_changes_the_hash(bench: Bench) -> None:
    before = bench.machine.state_hash()
    begin(bench, run=3)
    assert bench.machine.state_hash() != before
    bench.reopen()
    assert migration_in(bench.machine.secrets[MIGRATION_NAME]) == ("old", 3)
    with pytest.raises(CodecError, match="not the marker of a migration"):
        migration_in(b"\x93\x02\xa1a\x01")


# ----------------------------------------------------------------------------- other commands meanwhile


def test_other_writes_are_refused_with_a_sentence_and_ticks_are_not(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("a", 1, b"1"))
    writes = (
        c.Upsert("a", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"2"),
        c.Transaction((), (), (c.DeleteByPrefix(""),), ()),
        c.BranchTransaction((c.Branch(None, (c.Put("a", b"2"),)),)),
    )
    replies = bench.apply(*writes, c.TICK, c.SetFeature("dummy", True))
    for reply in replies[:3]:
        assert isinstance(reply, c.ErrorReply)
        assert reply.text == (
            "this cluster takes the records of cluster old and no other writes until that ends: with `metactl migrate "
            "--cut-over`, or `metactl migrate --abort`"
        )
    assert replies[3:] == (c.TransactionReply(True, (), "then"), c.FeatureReply(("dummy",)))
    assert records(bench) == {"a": SeqV(1, b"1", KVMeta(None, 0))}


def test_nothing_expires_until_the_end(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("a", 1, b"", NOW_MS + 5, 0))
    bench.apply(c.TICK, at_ms=NOW_MS + 60_000)
    assert list(records(bench)) == ["a"]
    assert not bench.machine.expires_before(NOW_MS + 60_000)
    step(bench, Step.FINISH, count=1)
    assert records(bench) == {}


def test_a_step_that_uses_a_number_twice_changes_nothing(bench: Bench) -> None:
    begin(bench)
    (reply,) = bench.apply(c.Migrate(Step.STORE, 1, records=(Record("a", 5, LARGE), Record("b", 5, LARGE))))
    assert reply == c.ErrorReply("another record has the sequence number 5 of 'b'")
    assert (records(bench), bench.machine.last_seq) == ({}, 0)


@pytest.mark.parametrize(
    "command",
    [
        c.Migrate(Step.STORE, 1, records=(Record("a", 1, b""),) * (MIGRATED_RECORDS_MAX + 1)),
        c.Migrate(Step.CLEAR, 1, count=MIGRATED_RECORDS_MAX + 1),
        c.Migrate(Step.BEGIN, 1, "x" * (KEY_SIZE_BYTES_MAX + 1)),
        c.Migrate(Step.STORE, 1, records=(Record("a" * (KEY_SIZE_BYTES_MAX + 1), 1, b""),)),
        c.Migrate(Step.STORE, 1, records=(Record("a", 1, b"x" * (VALUE_SIZE_BYTES_MAX + 1)),)),
    ],
)
def test_what_is_too_large_is_not_proposed(command: c.Migrate) -> None:
    with pytest.raises(TooLargeError):
        validate_command(command)


@pytest.mark.parametrize("record", [Record("a", 0, b""), Record("a", I64_MAX + 1, b""), Record("a", 1, b"", 2**64)])
def test_numbers_that_cannot_be_stored_are_not_proposed(record: Record) -> None:
    with pytest.raises(InvalidRequestError):
        validate_command(c.Migrate(Step.STORE, 1, records=(record,)))
    validate_command(c.Migrate(Step.STORE, 1, records=(Record("a", I64_MAX, b"", 2**64 - 1),) * MIGRATED_RECORDS_MAX))


# ----------------------------------------------------------------------------- random histories

CHANGES = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from([b"v", LARGE])), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, repeated=st.lists(st.integers(0, 11), max_size=6))
def test_a_history_with_repeated_steps_ends_as_its_source(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, bool, bytes]], repeated: list[int]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("state"))
    begin(bench)
    source: dict[str, SeqV] = {}
    for seq, (key, deletes, data) in enumerate(changes, 1):
        if deletes:
            gone = source.pop(key, SeqV(0, b""))
            record = Record(key, max(gone.seq, 1), None)
        else:
            source[key] = SeqV(seq, data, KVMeta(None, seq))
            record = Record(key, seq, data, None, seq)
        for _ in range(1 + repeated.count(seq)):
            store(bench, record)
    assert records(bench) == source
    assert bench.machine.rows_fit()
    bench.machine.close()


# ----------------------------------------------------------------------------- the limits of the cluster


def test_what_a_migration_stores_and_deletes_counts_in_the_size_of_the_data(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("a", 3, b"12"), Record("é", 4, LARGE), Record("old", 5, b"1", NOW_MS - 1))
    assert bench.machine.data_size_bytes == 3 + 2 + len(LARGE) + 4
    store(bench, Record("a", 6, LARGE), Record("é", 7, b"1"), Record("old", 5, b"again"))
    assert bench.machine.data_size_bytes == 1 + len(LARGE) + 3 + 4
    assert bench.reopen().rows_fit()
    store(bench, Record("a", 6, None))
    assert bench.machine.data_size_bytes == 3 + 4
    assert step(bench, Step.CLEAR, count=1).refused == ""
    assert bench.machine.data_size_bytes == 3, "`old` is first in key order"
    assert step(bench, Step.FINISH, count=1).refused == ""
    assert bench.machine.data_size_bytes == bench.machine._store.data_size_bytes()
    assert bench.reopen().rows_fit()


def test_what_has_expired_at_the_source_leaves_the_size_at_the_end(bench: Bench) -> None:
    begin(bench)
    store(bench, Record("kept", 3, b"1"), Record("expired", 4, LARGE, NOW_MS - 1))
    assert step(bench, Step.FINISH, count=2).refused == ""
    assert (bench.keys(), bench.machine.data_size_bytes) == (["kept"], 5)
    assert bench.reopen().rows_fit()


def test_no_limit_stops_a_migration_and_clients_meet_the_quota_after_it(bench: Bench) -> None:
    bench.apply(c.SetQuota(10), c.SetReadOnly("moving"))
    begin(bench)
    store(bench, Record("a", 3, LARGE), Record("b", 4, LARGE))
    assert store(bench, Record("b", 4, None)).key_count == 1
    assert step(bench, Step.FINISH, count=1).refused == ""
    bench.apply(c.SetReadOnly(None))
    (reply,) = bench.apply(c.Upsert("c", c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b""))
    assert isinstance(reply, c.RefusedReply)
    assert "keys and values take 2001 bytes, the limit is 10" in reply.text
    assert bench.machine.limits.quota_bytes == 10
