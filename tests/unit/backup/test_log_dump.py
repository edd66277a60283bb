"""The log of a stopped node as text: the form of each record, the values below, and damaged records in their place."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from metasrv.backup.dumping import dump
from metasrv.backup.log_text import payload_text, value_lines
from metasrv.model import commands as c
from metasrv.model.codec import encode_command
from metasrv.model.entries import Entry, MembershipEntry, NoopEntry, RegularEntry, encode_regular_entry
from metasrv.model.errors import DataDamagedError, IdentityError
from metasrv.model.types import Endpoint, Member, Membership, Node
from metasrv.node.opening import open_data
from metasrv.process.data_directory import DataDirectory

TIME_MS = 1_760_886_235_193
HEAD = ["RaftLog:", "ChunkId(00_000_000_000_000_000_000)"]
RECORD = re.compile(r"  R-(\d{5}): \[((?:\d{3}_)+\d{3}), ((?:\d{3}_)+\d{3})\) Size\((\d+)\): (.*)")


def regular(*commands: c.Command) -> Entry:
    return RegularEntry(TIME_MS, 1, commands)


ANY = c.MatchSeq(c.MatchKind.ANY)


def upsert(key: str, value: bytes, match: c.MatchSeq = ANY, **lifetime: int) -> c.Upsert:
    return c.Upsert(key, match, c.Operation.UPDATE, value, **lifetime)


def put(*operations: c.TransactionOperation, else_then: tuple[c.TransactionOperation, ...] = ()) -> c.Transaction:
    return c.Transaction((), (), operations, else_then)


FEW = c.Condition("p/", c.Target.KEYS_WITH_PREFIX, 2, c.Comparison.LT)
COMMANDS: list[tuple[c.Command, str]] = [
    (upsert("a/b", b"1"), 'upsert_kv:a/b(GE(0)) = Update("[binary]") (None)'),
    (
        upsert("k", b"", c.MatchSeq(c.MatchKind.EXACT, 3), ttl_ms=5),
        'upsert_kv:k(Exact(3)) = Update("[binary]") (ttl_ms=5)',
    ),
    (c.Upsert("k", c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1), c.Operation.DELETE), "upsert_kv:k(GE(1)) = Delete (None)"),
    (
        c.Transaction(
            (),
            (c.Condition("a/b", c.Target.SEQ, 0, c.Comparison.GE),),
            (c.Put("a/b", b"v"), c.Put("t", b"v", ttl_ms=60_000)),
            (c.Get("a/b"),),
        ),
        "txn:TxnRequest{if:[a/b >= seq(0)] then:[Put(Put key=a/b),Put(Put key=t  ttl: 60s)] else:[Get(Get key=a/b)]}",
    ),
    (
        put(c.Delete("d", 4), c.DeleteByPrefix("p/"), c.FetchIncrease("n", 2), c.PutSequential("q/", "s", b"v")),
        "txn:TxnRequest{if:[] then:[Delete(Delete key=d match_seq: 4),DeleteByPrefix(DeleteByPrefix prefix=p/),"
        "FetchIncreaseU64(FetchIncreaseU64 key=n delta=2),PutSequential(PutSequential prefix=q/ seq_key=s)] else:[]}",
    ),
    (
        c.BranchTransaction(
            (
                c.Branch(
                    c.Expression(
                        c.Combine.OR,
                        (
                            c.Expression(
                                c.Combine.AND, (), (c.Condition("p/", c.Target.KEYS_WITH_PREFIX, 2, c.Comparison.LT),)
                            ),
                        ),
                        (c.Condition("k", c.Target.VALUE, b"four", c.Comparison.NE),),
                    ),
                    (c.Put("k", b"v", expire_at=9),),
                ),
                c.Branch(None, ()),
            )
        ),
        "kv_txn:KvTransactionRequest{branches:[if:((p/ < keys_with_prefix(2)) OR k != value(4 bytes)) "
        "then:[Put(Put key=k expire_at: 9)],if:(true) then:[]]}",
    ),
    (
        c.AddNode(Node(1, Endpoint("localhost", 28103), "", "127.0.0.1:9191"), False),
        "add_node(no-override):1=id=1 raft=localhost:28103 grpc=127.0.0.1:9191",
    ),
    (c.AddNode(Node(2, Endpoint("h", 1), "", None), True), "add_node(override):2=id=2 raft=h:1 grpc="),
    (c.RemoveNode(3), "remove_node:3"),
    (c.SetFeature("dummy", True), "set_feature:dummy:true"),
    (c.SetClusterSecret("name", b"a secret"), "set_secret:name"),
    (c.ReplaceSecret("name", b"a secret", b"another secret"), "replace_secret:name"),
]


@pytest.mark.parametrize(("command", "text"), COMMANDS, ids=[type(row[0]).__name__ for row in COMMANDS])
def test_each_command(command: c.Command, text: str) -> None:
    assert payload_text(regular(command)) == f"normal:time: 2025-10-19T15:03:55.193 cmd: {text}"


def test_other_entries() -> None:
    both = f"{COMMANDS[0][1]}, {COMMANDS[8][1]}"
    assert payload_text(regular(COMMANDS[0][0], COMMANDS[8][0])) == f"normal:time: 2025-10-19T15:03:55.193 cmds: [{both}]"
    assert payload_text(NoopEntry(1)) == "blank"
    member = Member(Endpoint("h", 1), "directory")
    membership = Membership({2: member, 1: member}, {5: member})
    text = "membership:{voters:[{1:EmptyNode,2:EmptyNode}], learners:[5:EmptyNode]}"
    assert payload_text(MembershipEntry(1, Membership(), membership)) == text
    assert payload_text(RegularEntry(2**62, 1, (c.RemoveNode(1),))) == f"normal:time: {2**62} cmd: remove_node:1"


def test_values_are_shown_when_asked_for_and_secrets_never() -> None:
    entry = regular(
        upsert("u", b"text"),
        put(c.Put("p", b"\x00\x01", ttl_ms=60_000), c.Get("g"), else_then=(c.PutSequential("q/", "s", b"two\n"),)),
        c.BranchTransaction((c.Branch(None, (c.Put("b", b""),)),)),
        c.SetClusterSecret("name", b"hidden"),
    )
    assert list(value_lines(entry, decoded=False, raw=False)) == []
    assert list(value_lines(entry, decoded=True, raw=False)) == [
        '    value(u): "text"',
        "    txn.if_then[0].put p (ttl_ms=60000):",
        "      unknown-prefix(2 bytes)",
        "    txn.else_then[0].put_sequential q/:",
        "      unknown-prefix(4 bytes)",
        "    kv_txn.branches[0].ops[0].put b:",
        "      unknown-prefix(0 bytes)",
    ]
    assert list(value_lines(entry, decoded=False, raw=True)) == [
        "    raw(u): [116, 101, 120, 116]",
        "    txn.if_then[0].put p raw:",
        "      [0, 1]",
        "    txn.else_then[0].put_sequential q/ raw:",
        "      [116, 119, 111, 10]",
        "    kv_txn.branches[0].ops[0].put b raw:",
        "      []",
    ]
    assert not any("hidden" in line for line in value_lines(entry, decoded=True, raw=True))


# ----------------------------------------------------------------------------- of a directory


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The directory of node 1, stopped, with three entries of its own."""
    data = open_data(str(tmp_path), 1, Endpoint("h", 1), bootstrap=True)
    first = data.store.last_index + 1
    for number in range(3):
        data.store.add(encode_regular_entry(TIME_MS, 1, [encode_command(upsert(f"k{number}", b"v"))]), first + number, 1)
    pending = data.store.take_pending()
    assert pending is not None
    data.writer.write(pending)
    data.close()
    return str(tmp_path)


def records(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Size and text of each record; numbers and offsets have no gap."""
    assert [next(lines), next(lines)] == HEAD
    end = 0
    for number, line in enumerate(lines):
        found = RECORD.fullmatch(line)
        assert found is not None, line
        start, end_of_this = (int(found[group].replace("_", "")) for group in (2, 3))
        assert (int(found[1]), start, end_of_this - start) == (number, end, int(found[4]))
        end = end_of_this
        yield int(found[4]), found[5]


def test_a_sound_log(root: str) -> None:
    found = list(records(dump(root, decoded=False, raw=False)))
    assert re.fullmatch(
        r"RaftLogState\(RaftLogState\(vote: \S+, last: T1-N1\.\d+, committed: None, purged: None, "
        r"user_data: LogStoreMeta\{ node_id: Some\(1\) \}\)\)",
        found[0][1],
    )
    assert re.fullmatch(r"Append\(log_id: T\d+-N\d+\.1, payload: \w+.*\)", found[1][1])
    for number, (size_bytes, text) in enumerate(found[-3:]):
        assert size_bytes > 10
        assert text.startswith("Append(log_id: T1-N1.")
        assert text.endswith(f'cmd: upsert_kv:k{number}(GE(0)) = Update("[binary]") (None))')
    assert '    value(k2): "v"' in dump(root, decoded=True, raw=False)


SPOIL = "UPDATE entries SET content = zeroblob(7) WHERE log_index = "
RETYPE = "UPDATE entries SET content = 'text' WHERE log_index = "
REMOVE = "DELETE FROM entries WHERE log_index = "
LAST_BUT_ONE = "(SELECT max(log_index) - 1 FROM entries)"


def shown_until_damage(root: str, found: list[str]) -> None:
    for _size_bytes, text in records(dump(root, decoded=False, raw=False)):
        found.append(text)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (SPOIL, r"Damaged\(entry \d+: its checksum does not match\)"),
        (REMOVE, r"Damaged\(entry (\d+): entries \1 to \1 are missing\)"),
        (RETYPE, r"Damaged\(entry \d+: a column has a value of the wrong type: .*\)"),
    ],
)
def test_a_damaged_record_is_named_and_the_others_are_shown(root: str, damage: str, named: str) -> None:
    directory = DataDirectory.open_present(root)
    directory.close()
    with closing(sqlite3.connect(directory.log_path)) as connection:
        connection.execute(damage + LAST_BUT_ONE)
        connection.commit()
    found: list[str] = []
    with pytest.raises(DataDamagedError, match=re.escape(directory.log_path)):
        shown_until_damage(root, found)
    assert [bool(re.fullmatch(named, text)) for text in found[-2:]] == [True, False]
    assert "k2" in found[-1]
    assert "k0" in found[-3]


def test_a_log_of_which_little_is_left(root: str) -> None:
    directory = DataDirectory.open_present(root)
    directory.close()
    with open(directory.log_path, "r+b") as file:
        file.truncate(4096)
    found: list[str] = []
    with pytest.raises(DataDamagedError):
        shown_until_damage(root, found)
    assert any(text.startswith("Damaged(") for text in found)


def test_only_of_a_stopped_node(root: str) -> None:
    held = DataDirectory.open_present(root)
    try:
        with pytest.raises(IdentityError):
            list(dump(root, decoded=False, raw=False))
    finally:
        held.close()
    with pytest.raises(IdentityError):
        list(dump(os.path.join(root, "none"), decoded=False, raw=False))
