"""The wire contract: committed classes are the schema's, and the schema is that of docs/contract/grpc.md section a."""

from __future__ import annotations

import importlib.metadata
import re
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from grpc_tools import protoc

import metasrv
from metasrv.model.migration import MigrationStep
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

ROOT = Path(metasrv.__file__).parent.parent
SCHEMA = "metasrv/protocol/proto/meta.proto"
GENERATED = ("meta_pb2.py", "meta_pb2.pyi", "meta_pb2_grpc.py")

# message: "number name type", `?` marks proto3 optional, `*` repeated, `<oneof>` membership
TABLES = {
    "RaftRequest": ["1 data string"],
    "RaftReply": ["1 data string", "2 error string"],
    "MemberListRequest": ["1 data string"],
    "MemberListReply": ["1 data string*"],
    "HandshakeRequest": ["1 protocol_version uint64", "2 payload bytes"],
    "HandshakeResponse": ["1 protocol_version uint64", "2 payload bytes"],
    "ExportRequest": ["10 chunk_size uint64?"],
    "ExportedChunk": ["10 data string*"],
    "WatchRequest": ["1 key string", "2 key_end string?", "3 filter_type FilterType", "4 initial_flush bool"],
    "Event": ["1 key string", "2 current SeqV?", "3 prev SeqV?"],
    "WatchResponse": ["1 event Event", "2 is_initialization bool"],
    "StreamItem": ["1 key string", "2 value SeqV?"],
    "KvListRequest": ["1 prefix string", "2 limit uint64?"],
    "KvGetManyRequest": ["1 key string"],
    "KeysLayoutRequest": ["1 depth uint32?"],
    "KeysCount": ["1 prefix string", "2 count uint64"],
    "ClientInfo": ["10 client_addr string", "20 server_time uint64?"],
    "SeqV": ["1 seq uint64", "2 data bytes", "3 meta KVMeta?"],
    "KVMeta": ["1 expire_at uint64?", "2 proposed_at_ms uint64?"],
    "BasicAuth": ["2 username string", "3 password string"],
    "TxnCondition": [
        "1 key string",
        "2 value bytes<target>",
        "3 seq uint64<target>",
        "4 expected ConditionResult",
        "5 keys_with_prefix uint64<target>",
    ],
    "BooleanExpression": [
        "1 operator CombiningOperator",
        "2 sub_expressions BooleanExpression*",
        "3 conditions TxnCondition*",
    ],
    "ConditionalOperation": ["1 predicate BooleanExpression", "2 operations TxnOp*"],
    "TxnRequest": [
        "1 condition TxnCondition*",
        "2 if_then TxnOp*",
        "3 else_then TxnOp*",
        "4 operations ConditionalOperation*",
    ],
    "TxnReply": ["1 success bool", "2 responses TxnOpResponse*", "4 execution_path string"],
    "KvTransactionRequest": ["1 branches ConditionalOperation*"],
    "KvTransactionReply": ["1 executed_branch uint32?", "2 responses TxnOpResponse*"],
    "TxnOp": [
        "1 get TxnGetRequest<request>",
        "2 put TxnPutRequest<request>",
        "3 delete TxnDeleteRequest<request>",
        "4 delete_by_prefix TxnDeleteByPrefixRequest<request>",
        "5 fetch_increase_u64 FetchIncreaseU64<request>",
        "6 put_sequential PutSequential<request>",
    ],
    "TxnOpResponse": [
        "1 get TxnGetResponse<response>",
        "2 put TxnPutResponse<response>",
        "3 delete TxnDeleteResponse<response>",
        "4 delete_by_prefix TxnDeleteByPrefixResponse<response>",
        "5 fetch_increase_u64 FetchIncreaseU64Response<response>",
    ],
    "TxnGetRequest": ["1 key string"],
    "TxnGetResponse": ["1 key string", "2 value SeqV?"],
    "TxnPutRequest": [
        "1 key string",
        "2 value bytes",
        "3 prev_value bool",
        "4 expire_at uint64?",
        "5 ttl_ms uint64?",
        "6 match_seq uint64?",
    ],
    "TxnPutResponse": ["1 key string", "2 prev_value SeqV?", "3 current SeqV?"],
    "TxnDeleteRequest": ["1 key string", "2 prev_value bool", "3 match_seq uint64?"],
    "TxnDeleteResponse": ["1 key string", "2 success bool", "3 prev_value SeqV?"],
    "TxnDeleteByPrefixRequest": ["1 prefix string"],
    "TxnDeleteByPrefixResponse": ["1 prefix string", "2 count uint32"],
    "FetchIncreaseU64": ["1 key string", "2 delta int64", "3 match_seq uint64?", "4 max_value uint64"],
    "FetchIncreaseU64Response": [
        "1 key string",
        "2 before_seq uint64",
        "3 before uint64",
        "4 after_seq uint64",
        "5 after uint64",
    ],
    "PutSequential": [
        "1 prefix string",
        "2 sequence_key string",
        "3 value bytes",
        "4 expires_at_ms uint64?",
        "5 ttl_ms uint64?",
    ],
    "ClusterStatus": [
        "1 id uint64",
        "2 binary_version string",
        "3 data_version string",
        "4 endpoint string",
        "5 raft_log_size uint64",
        "6 state string",
        "7 is_leader bool",
        "8 current_term uint64",
        "9 last_log_index uint64",
        "10 last_applied string",
        "11 snapshot_last_log_id string?",
        "12 purged string?",
        "13 leader string?",
        "14 replication ReplicationEntry*",
        "15 voters string*",
        "16 non_voters string*",
        "17 last_seq uint64",
        "18 snapshot_key_count uint64",
        "19 raft_log_status RaftLogStatus",
        "1001 learners LearnerStatus*",
        "1002 data_size_bytes uint64",
        "1003 quota_bytes uint64",
        "1004 read_only string?",
        "1005 read_only_since_ms uint64",
        "1006 drained bool",
    ],
    "LearnerStatus": [
        "1 id uint64",
        "2 learner_for_ms uint64",
        "3 caught_up bool?",
    ],
    "RaftLogStatus": [
        "1 cache_items uint64",
        "2 cache_used_size uint64",
        "3 wal_total_size uint64",
        "4 wal_open_chunk_size uint64",
        "5 wal_offset uint64",
        "6 wal_closed_chunk_count uint64",
        "7 wal_closed_chunk_total_size uint64",
        "8 wal_closed_chunk_sizes WalClosedChunkSizesEntry*",
    ],
    "Empty": [],
    "MigratedRecord": [
        "1 key string",
        "2 seq uint64",
        "3 data bytes?",
        "4 expire_at uint64?",
        "5 proposed_at_ms uint64",
    ],
    "MigrateRequest": [
        "1 step Step",
        "2 run uint64",
        "3 source string",
        "4 last_seq uint64",
        "5 count uint64",
        "6 records MigratedRecord*",
    ],
    "MigrateReply": [
        "1 refused string",
        "2 source string",
        "3 run uint64",
        "4 last_seq uint64",
        "5 key_count uint64",
    ],
}
SCALARS = {
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}


def field_text(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        kind = field.message_type.name
    elif field.enum_type is not None:
        kind = field.enum_type.name
    else:
        kind = SCALARS[field.type]
    mark = "*" if field.is_repeated else ""
    oneof = field.containing_oneof
    if oneof is not None:
        mark = "?" if oneof.name == f"_{field.name}" else f"<{oneof.name}>"
    return f"{field.number} {field.name} {kind}{mark}"


@pytest.mark.parametrize("name", TABLES)
def test_fields_are_the_specified_ones(name: str) -> None:
    fields = pb.DESCRIPTOR.message_types_by_name[name].fields
    assert [field_text(field) for field in sorted(fields, key=lambda field: field.number)] == TABLES[name]


def test_every_message_is_in_the_tables() -> None:
    assert set(pb.DESCRIPTOR.message_types_by_name) == set(TABLES)
    assert pb.DESCRIPTOR.package == "meta"


def test_enums_have_the_specified_numbers() -> None:
    assert dict(pb.WatchRequest.FilterType.items()) == {"ALL": 0, "UPDATE": 1, "DELETE": 2}
    results = {"EQ": 0, "GT": 1, "GE": 2, "LT": 3, "LE": 4, "NE": 5}
    assert dict(pb.TxnCondition.ConditionResult.items()) == results
    assert dict(pb.BooleanExpression.CombiningOperator.items()) == {"AND": 0, "OR": 1}
    assert dict(pb.MigrateRequest.Step.items()) == {step.name: step.value for step in MigrationStep}


def kind_of(method: MethodDescriptor) -> m.Kind:
    if method.client_streaming:
        return m.Kind.BIDIRECTIONAL
    return m.Kind.SERVER_STREAM if method.server_streaming else m.Kind.UNARY


def test_the_method_table_is_the_service() -> None:
    service = pb.DESCRIPTOR.services_by_name["MetaService"]
    assert service.full_name == m.SERVICE_NAME
    assert [method.name for method in service.methods] == [method.name for method in m.METHODS]
    for described, method in zip(service.methods, m.METHODS, strict=True):
        assert method.kind is kind_of(described)
        assert method.request.DESCRIPTOR is described.input_type
        assert method.reply.DESCRIPTOR is described.output_type
        assert method.path == f"/meta.MetaService/{described.name}"


def test_tokens_are_asked_for_where_the_specification_says() -> None:
    asking = {"KvApi", "KvReadV1", "KvList", "KvGetMany", "Transaction", "KvTransaction", "MemberList", "Migrate"}
    assert {method.name for method in m.METHODS if method.token} == asking


def test_committed_classes_are_generated_from_the_schema(tmp_path: Path) -> None:
    well_known = str(resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}"]
    arguments += [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    assert protoc.main([*arguments, str(ROOT / SCHEMA)]) == 0
    folder = Path(SCHEMA).parent
    committed = {name: (ROOT / folder / name).read_text() for name in GENERATED}
    fresh = {name: (tmp_path / folder / name).read_text() for name in GENERATED}
    [used] = re.findall(r"GRPC_GENERATED_VERSION = '(.*)'", committed["meta_pb2_grpc.py"])
    if used == importlib.metadata.version("grpcio-tools"):
        assert committed == fresh
    # Another version of the generator writes other Python around the same description of the messages.
    described = re.compile(r"AddSerializedFile\((.*)\)\n")
    assert described.findall(committed["meta_pb2.py"]) == described.findall(fresh["meta_pb2.py"])
