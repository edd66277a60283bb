"""The texts of metactl (docs/contract/admin-api.md section 4)."""

from __future__ import annotations

from metasrv.cli import output
from metasrv.client.answers import WatchEvent
from metasrv.model.types import KVMeta, SeqV
from metasrv.protocol.proto import meta_pb2 as pb

TEXT = """\
BinaryVersion: 0.1.0
DataVersion: V004
RaftLogSize: 30
RaftLog:
  - CacheItems: 1
  - CacheUsedSize: 2
  - WALTotalSize: 30
  - WALOpenChunkSize: 4
  - WALOffset: 5
  - WALClosedChunkCount: 6
  - WALClosedChunkTotalSize: 7
  - WALClosedChunkSizes:
    - ChunkId(00_000): 8
SnapshotKeyCount: 9
Node: id=1 raft=localhost:28103
State: Leader
Leader: id=1 raft=localhost:28103 grpc=127.0.0.1:9191
CurrentTerm: 2
LastSeq: 3
LastLogIndex: 7
LastApplied: T1-N1.7
SnapshotLastLogID: T1-N1.5
Purged: T1-N1.4
Replication:
  - [1] T1-N1.7
  - [2] T1-N1.6 *
Voters:
  - id=1 raft=localhost:28103 grpc=127.0.0.1:9191
NonVoters:
  - id=2 raft=localhost:28203 grpc=
"""


def test_status_to_the_letter() -> None:
    status = pb.ClusterStatus(
        id=1,
        binary_version="0.1.0",
        data_version="V004",
        endpoint="localhost:28103",
        raft_log_size=30,
        state="Leader",
        is_leader=True,
        current_term=2,
        last_log_index=7,
        last_applied="T1-N1.7",
        snapshot_last_log_id="T1-N1.5",
        purged="T1-N1.4",
        leader="id=1 raft=localhost:28103 grpc=127.0.0.1:9191",
        replication={2: "T1-N1.6", 1: "T1-N1.7"},
        voters=["id=1 raft=localhost:28103 grpc=127.0.0.1:9191"],
        non_voters=["id=2 raft=localhost:28203 grpc="],
        last_seq=3,
        snapshot_key_count=9,
        raft_log_status=pb.RaftLogStatus(
            cache_items=1,
            cache_used_size=2,
            wal_total_size=30,
            wal_open_chunk_size=4,
            wal_offset=5,
            wal_closed_chunk_count=6,
            wal_closed_chunk_total_size=7,
            wal_closed_chunk_sizes={"ChunkId(00_000)": 8},
        ),
    )
    assert "".join(f"{line}\n" for line in output.status_lines(status)) == TEXT


def test_status_without_what_may_be_missing() -> None:
    lines = list(output.status_lines(pb.ClusterStatus(id=1, endpoint="h:1")))
    starts = [line.split(":")[0] for line in lines]
    assert starts == [
        "BinaryVersion",
        "DataVersion",
        "RaftLogSize",
        "SnapshotKeyCount",
        "Node",
        "State",
        "CurrentTerm",
        "LastSeq",
        "LastLogIndex",
        "LastApplied",
    ]


def test_learners_that_never_caught_up_are_shown_with_age_and_remedy() -> None:
    learners = [
        pb.LearnerStatus(id=4, learner_for_ms=723_999, caught_up=False),
        pb.LearnerStatus(id=5, learner_for_ms=60_000, caught_up=True),
    ]
    lines = list(output.status_lines(pb.ClusterStatus(id=1, endpoint="h:28103", is_leader=True, learners=learners)))
    assert lines[-2:] == [
        "WaitingLearners:",
        "  - [4] learns for 0:12:03 and never caught up; to remove it: metasrv --leave-id 4 --leave-via h:28103",
    ]


def test_a_node_that_does_not_lead_shows_the_age_of_learners_only() -> None:
    status = pb.ClusterStatus(id=2, endpoint="h:28103", learners=[pb.LearnerStatus(id=4, learner_for_ms=90_061_000)])
    assert list(output.status_lines(status))[-2:] == [
        "Learners:",
        "  - [4] learns for 1 day, 1:01:01; ask the leader whether it has caught up",
    ]


def test_what_an_operator_turned_on_is_shown_last() -> None:
    status = pb.ClusterStatus(
        id=2,
        read_only="moving",
        read_only_since_ms=1_700_000_000_000,
        quota_bytes=1000,
        data_size_bytes=900,
        drained=True,
    )
    assert list(output.status_lines(status))[-3:] == [
        "ReadOnly: since 2023-11-14T22:13:20.000Z: moving",
        "Quota: keys and values take 900 of 1000 bytes (90%)",
        "Drained: node 2 leads no more and is not ready, until `metactl node drain 2 --off`",
    ]
    status = pb.ClusterStatus(read_only="", read_only_since_ms=1_700_000_000_000)
    assert list(output.status_lines(status))[-1] == "ReadOnly: since 2023-11-14T22:13:20.000Z"


def test_records() -> None:
    record = SeqV(2, b"text", KVMeta(None, 9))
    assert output.record_json(None) == "null"
    assert output.record_json(SeqV(1, b"\x01", None)) == '{"seq":1,"meta":null,"data":[1]}'
    assert output.upsert_line(None, record) == (
        "upsert-result: None: None -> Some(SeqV { seq: 2, meta: Some(KVMeta { expire_at: None, "
        'proposed_at_ms: Some(9) }), data: "[binary]" })'
    )
    assert output.debug_record(SeqV(2, b"", None)) == 'Some(SeqV { seq: 2, meta: None, data: "[binary]" })'


def test_watch_lines() -> None:
    record = SeqV(2, b"text", KVMeta(None, 9))
    start = "received-watch-event: "
    existing = WatchEvent("k", None, record, True)
    assert output.watch_line(existing) == f"{start}INIT:(k: None -> (seq=2 [] 'text'))"
    assert output.watch_line(WatchEvent("", None, None, False, True)) == f"{start}INIT:None"
    assert output.watch_line(WatchEvent("k", record, None, False)) == (f"{start}CHANGE:(k: (seq=2 [] 'text') -> None)")


def test_values_that_are_no_text_and_times_that_are_no_dates() -> None:
    assert output.display_record(SeqV(1, b"a\xff", KVMeta(1_000, 1))) == (
        "(seq=1 [expire=1970-01-01T00:16:40.000Z] 'a\\xff')"
    )
    assert output.time_text(1_700_000_000_000) == "2023-11-14T22:13:20.000Z"
    assert output.time_text(2**64 - 1) == str(2**64 - 1)


def test_pretty_json() -> None:
    assert output.pretty_json({"features": ["a"], "enabled": []}) == (
        '{\n  "features": [\n    "a"\n  ],\n  "enabled": []\n}'
    )
