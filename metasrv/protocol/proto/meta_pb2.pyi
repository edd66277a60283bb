from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HandshakeRequest(_message.Message):
    __slots__ = ("protocol_version", "payload")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    payload: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class HandshakeResponse(_message.Message):
    __slots__ = ("protocol_version", "payload")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    payload: bytes
    def __init__(self, protocol_version: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class BasicAuth(_message.Message):
    __slots__ = ("username", "password")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class KVMeta(_message.Message):
    __slots__ = ("expire_at", "proposed_at_ms")
    EXPIRE_AT_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    expire_at: int
    proposed_at_ms: int
    def __init__(self, expire_at: _Optional[int] = ..., proposed_at_ms: _Optional[int] = ...) -> None: ...

class SeqV(_message.Message):
    __slots__ = ("seq", "data", "meta")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    seq: int
    data: bytes
    meta: KVMeta
    def __init__(self, seq: _Optional[int] = ..., data: _Optional[bytes] = ..., meta: _Optional[_Union[KVMeta, _Mapping]] = ...) -> None: ...

class StreamItem(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: SeqV
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SeqV, _Mapping]] = ...) -> None: ...

class RaftRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: str
    def __init__(self, data: _Optional[str] = ...) -> None: ...

class RaftReply(_message.Message):
    __slots__ = ("data", "error")
    DATA_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    data: str
    error: str
    def __init__(self, data: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class KvListRequest(_message.Message):
    __slots__ = ("prefix", "limit")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    limit: int
    def __init__(self, prefix: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class KvGetManyRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class TxnCondition(_message.Message):
    __slots__ = ("key", "value", "seq", "keys_with_prefix", "expected")
    class ConditionResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EQ: _ClassVar[TxnCondition.ConditionResult]
        GT: _ClassVar[TxnCondition.ConditionResult]
        GE: _ClassVar[TxnCondition.ConditionResult]
        LT: _ClassVar[TxnCondition.ConditionResult]
        LE: _ClassVar[TxnCondition.ConditionResult]
        NE: _ClassVar[TxnCondition.ConditionResult]
    EQ: TxnCondition.ConditionResult
    GT: TxnCondition.ConditionResult
    GE: TxnCondition.ConditionResult
    LT: TxnCondition.ConditionResult
    LE: TxnCondition.ConditionResult
    NE: TxnCondition.ConditionResult
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KEYS_WITH_PREFIX_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    seq: int
    keys_with_prefix: int
    expected: TxnCondition.ConditionResult
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., seq: _Optional[int] = ..., keys_with_prefix: _Optional[int] = ..., expected: _Optional[_Union[TxnCondition.ConditionResult, str]] = ...) -> None: ...

class BooleanExpression(_message.Message):
    __slots__ = ("operator", "sub_expressions", "conditions")
    class CombiningOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AND: _ClassVar[BooleanExpression.CombiningOperator]
        OR: _ClassVar[BooleanExpression.CombiningOperator]
    AND: BooleanExpression.CombiningOperator
    OR: BooleanExpression.CombiningOperator
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    SUB_EXPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    operator: BooleanExpression.CombiningOperator
    sub_expressions: _containers.RepeatedCompositeFieldContainer[BooleanExpression]
    conditions: _containers.RepeatedCompositeFieldContainer[TxnCondition]
    def __init__(self, operator: _Optional[_Union[BooleanExpression.CombiningOperator, str]] = ..., sub_expressions: _Optional[_Iterable[_Union[BooleanExpression, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[TxnCondition, _Mapping]]] = ...) -> None: ...

class ConditionalOperation(_message.Message):
    __slots__ = ("predicate", "operations")
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    predicate: BooleanExpression
    operations: _containers.RepeatedCompositeFieldContainer[TxnOp]
    def __init__(self, predicate: _Optional[_Union[BooleanExpression, _Mapping]] = ..., operations: _Optional[_Iterable[_Union[TxnOp, _Mapping]]] = ...) -> None: ...

class TxnRequest(_message.Message):
    __slots__ = ("operations", "condition", "if_then", "else_then")
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    IF_THEN_FIELD_NUMBER: _ClassVar[int]
    ELSE_THEN_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[ConditionalOperation]
    condition: _containers.RepeatedCompositeFieldContainer[TxnCondition]
    if_then: _containers.RepeatedCompositeFieldContainer[TxnOp]
    else_then: _containers.RepeatedCompositeFieldContainer[TxnOp]
    def __init__(self, operations: _Optional[_Iterable[_Union[ConditionalOperation, _Mapping]]] = ..., condition: _Optional[_Iterable[_Union[TxnCondition, _Mapping]]] = ..., if_then: _Optional[_Iterable[_Union[TxnOp, _Mapping]]] = ..., else_then: _Optional[_Iterable[_Union[TxnOp, _Mapping]]] = ...) -> None: ...

class TxnReply(_message.Message):
    __slots__ = ("success", "responses", "execution_path")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PATH_FIELD_NUMBER: _ClassVar[int]
    success: bool
    responses: _containers.RepeatedCompositeFieldContainer[TxnOpResponse]
    execution_path: str
    def __init__(self, success: _Optional[bool] = ..., responses: _Optional[_Iterable[_Union[TxnOpResponse, _Mapping]]] = ..., execution_path: _Optional[str] = ...) -> None: ...

class KvTransactionRequest(_message.Message):
    __slots__ = ("branches",)
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    branches: _containers.RepeatedCompositeFieldContainer[ConditionalOperation]
    def __init__(self, branches: _Optional[_Iterable[_Union[ConditionalOperation, _Mapping]]] = ...) -> None: ...

class KvTransactionReply(_message.Message):
    __slots__ = ("executed_branch", "responses")
    EXECUTED_BRANCH_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    executed_branch: int
    responses: _containers.RepeatedCompositeFieldContainer[TxnOpResponse]
    def __init__(self, executed_branch: _Optional[int] = ..., responses: _Optional[_Iterable[_Union[TxnOpResponse, _Mapping]]] = ...) -> None: ...

class TxnOp(_message.Message):
    __slots__ = ("get", "put", "delete", "delete_by_prefix", "fetch_increase_u64", "put_sequential")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    DELETE_BY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FETCH_INCREASE_U64_FIELD_NUMBER: _ClassVar[int]
    PUT_SEQUENTIAL_FIELD_NUMBER: _ClassVar[int]
    get: TxnGetRequest
    put: TxnPutRequest
    delete: TxnDeleteRequest
    delete_by_prefix: TxnDeleteByPrefixRequest
    fetch_increase_u64: FetchIncreaseU64
    put_sequential: PutSequential
    def __init__(self, get: _Optional[_Union[TxnGetRequest, _Mapping]] = ..., put: _Optional[_Union[TxnPutRequest, _Mapping]] = ..., delete: _Optional[_Union[TxnDeleteRequest, _Mapping]] = ..., delete_by_prefix: _Optional[_Union[TxnDeleteByPrefixRequest, _Mapping]] = ..., fetch_increase_u64: _Optional[_Union[FetchIncreaseU64, _Mapping]] = ..., put_sequential: _Optional[_Union[PutSequential, _Mapping]] = ...) -> None: ...

class TxnOpResponse(_message.Message):
    __slots__ = ("get", "put", "delete", "delete_by_prefix", "fetch_increase_u64")
    GET_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    DELETE_BY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    FETCH_INCREASE_U64_FIELD_NUMBER: _ClassVar[int]
    get: TxnGetResponse
    put: TxnPutResponse
    delete: TxnDeleteResponse
    delete_by_prefix: TxnDeleteByPrefixResponse
    fetch_increase_u64: FetchIncreaseU64Response
    def __init__(self, get: _Optional[_Union[TxnGetResponse, _Mapping]] = ..., put: _Optional[_Union[TxnPutResponse, _Mapping]] = ..., delete: _Optional[_Union[TxnDeleteResponse, _Mapping]] = ..., delete_by_prefix: _Optional[_Union[TxnDeleteByPrefixResponse, _Mapping]] = ..., fetch_increase_u64: _Optional[_Union[FetchIncreaseU64Response, _Mapping]] = ...) -> None: ...

class TxnGetRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class TxnGetResponse(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: SeqV
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SeqV, _Mapping]] = ...) -> None: ...

class TxnPutRequest(_message.Message):
    __slots__ = ("key", "value", "prev_value", "expire_at", "ttl_ms", "match_seq")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PREV_VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MATCH_SEQ_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    prev_value: bool
    expire_at: int
    ttl_ms: int
    match_seq: int
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., prev_value: _Optional[bool] = ..., expire_at: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., match_seq: _Optional[int] = ...) -> None: ...

class TxnPutResponse(_message.Message):
    __slots__ = ("key", "prev_value", "current")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PREV_VALUE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    key: str
    prev_value: SeqV
    current: SeqV
    def __init__(self, key: _Optional[str] = ..., prev_value: _Optional[_Union[SeqV, _Mapping]] = ..., current: _Optional[_Union[SeqV, _Mapping]] = ...) -> None: ...

class TxnDeleteRequest(_message.Message):
    __slots__ = ("key", "prev_value", "match_seq")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PREV_VALUE_FIELD_NUMBER: _ClassVar[int]
    MATCH_SEQ_FIELD_NUMBER: _ClassVar[int]
    key: str
    prev_value: bool
    match_seq: int
    def __init__(self, key: _Optional[str] = ..., prev_value: _Optional[bool] = ..., match_seq: _Optional[int] = ...) -> None: ...

class TxnDeleteResponse(_message.Message):
    __slots__ = ("key", "success", "prev_value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    PREV_VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    success: bool
    prev_value: SeqV
    def __init__(self, key: _Optional[str] = ..., success: _Optional[bool] = ..., prev_value: _Optional[_Union[SeqV, _Mapping]] = ...) -> None: ...

class TxnDeleteByPrefixRequest(_message.Message):
    __slots__ = ("prefix",)
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    def __init__(self, prefix: _Optional[str] = ...) -> None: ...

class TxnDeleteByPrefixResponse(_message.Message):
    __slots__ = ("prefix", "count")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    count: int
    def __init__(self, prefix: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class FetchIncreaseU64(_message.Message):
    __slots__ = ("key", "delta", "match_seq", "max_value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MATCH_SEQ_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    delta: int
    match_seq: int
    max_value: int
    def __init__(self, key: _Optional[str] = ..., delta: _Optional[int] = ..., match_seq: _Optional[int] = ..., max_value: _Optional[int] = ...) -> None: ...

class FetchIncreaseU64Response(_message.Message):
    __slots__ = ("key", "before_seq", "before", "after_seq", "after")
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_SEQ_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    key: str
    before_seq: int
    before: int
    after_seq: int
    after: int
    def __init__(self, key: _Optional[str] = ..., before_seq: _Optional[int] = ..., before: _Optional[int] = ..., after_seq: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class PutSequential(_message.Message):
    __slots__ = ("prefix", "sequence_key", "value", "expires_at_ms", "ttl_ms")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    sequence_key: str
    value: bytes
    expires_at_ms: int
    ttl_ms: int
    def __init__(self, prefix: _Optional[str] = ..., sequence_key: _Optional[str] = ..., value: _Optional[bytes] = ..., expires_at_ms: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("key", "key_end", "filter_type", "initial_flush")
    class FilterType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ALL: _ClassVar[WatchRequest.FilterType]
        UPDATE: _ClassVar[WatchRequest.FilterType]
        DELETE: _ClassVar[WatchRequest.FilterType]
    ALL: WatchRequest.FilterType
    UPDATE: WatchRequest.FilterType
    DELETE: WatchRequest.FilterType
    KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_END_FIELD_NUMBER: _ClassVar[int]
    FILTER_TYPE_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FLUSH_FIELD_NUMBER: _ClassVar[int]
    key: str
    key_end: str
    filter_type: WatchRequest.FilterType
    initial_flush: bool
    def __init__(self, key: _Optional[str] = ..., key_end: _Optional[str] = ..., filter_type: _Optional[_Union[WatchRequest.FilterType, str]] = ..., initial_flush: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("key", "current", "prev")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    PREV_FIELD_NUMBER: _ClassVar[int]
    key: str
    current: SeqV
    prev: SeqV
    def __init__(self, key: _Optional[str] = ..., current: _Optional[_Union[SeqV, _Mapping]] = ..., prev: _Optional[_Union[SeqV, _Mapping]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("event", "is_initialization")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    IS_INITIALIZATION_FIELD_NUMBER: _ClassVar[int]
    event: Event
    is_initialization: bool
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., is_initialization: _Optional[bool] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("chunk_size",)
    CHUNK_SIZE_FIELD_NUMBER: _ClassVar[int]
    chunk_size: int
    def __init__(self, chunk_size: _Optional[int] = ...) -> None: ...

class ExportedChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, data: _Optional[_Iterable[str]] = ...) -> None: ...

class KeysLayoutRequest(_message.Message):
    __slots__ = ("depth",)
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    depth: int
    def __init__(self, depth: _Optional[int] = ...) -> None: ...

class KeysCount(_message.Message):
    __slots__ = ("prefix", "count")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    count: int
    def __init__(self, prefix: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class MigratedRecord(_message.Message):
    __slots__ = ("key", "seq", "data", "expire_at", "proposed_at_ms")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_AT_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    key: str
    seq: int
    data: bytes
    expire_at: int
    proposed_at_ms: int
    def __init__(self, key: _Optional[str] = ..., seq: _Optional[int] = ..., data: _Optional[bytes] = ..., expire_at: _Optional[int] = ..., proposed_at_ms: _Optional[int] = ...) -> None: ...

class MigrateRequest(_message.Message):
    __slots__ = ("step", "run", "source", "last_seq", "count", "records")
    class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BEGIN: _ClassVar[MigrateRequest.Step]
        STORE: _ClassVar[MigrateRequest.Step]
        CLEAR: _ClassVar[MigrateRequest.Step]
        FINISH: _ClassVar[MigrateRequest.Step]
        ABORT: _ClassVar[MigrateRequest.Step]
    BEGIN: MigrateRequest.Step
    STORE: MigrateRequest.Step
    CLEAR: MigrateRequest.Step
    FINISH: MigrateRequest.Step
    ABORT: MigrateRequest.Step
    STEP_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    step: MigrateRequest.Step
    run: int
    source: str
    last_seq: int
    count: int
    records: _containers.RepeatedCompositeFieldContainer[MigratedRecord]
    def __init__(self, step: _Optional[_Union[MigrateRequest.Step, str]] = ..., run: _Optional[int] = ..., source: _Optional[str] = ..., last_seq: _Optional[int] = ..., count: _Optional[int] = ..., records: _Optional[_Iterable[_Union[MigratedRecord, _Mapping]]] = ...) -> None: ...

class MigrateReply(_message.Message):
    __slots__ = ("refused", "source", "run", "last_seq", "key_count")
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    refused: str
    source: str
    run: int
    last_seq: int
    key_count: int
    def __init__(self, refused: _Optional[str] = ..., source: _Optional[str] = ..., run: _Optional[int] = ..., last_seq: _Optional[int] = ..., key_count: _Optional[int] = ...) -> None: ...

class MemberListRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: str
    def __init__(self, data: _Optional[str] = ...) -> None: ...

class MemberListReply(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, data: _Optional[_Iterable[str]] = ...) -> None: ...

class ClientInfo(_message.Message):
    __slots__ = ("client_addr", "server_time")
    CLIENT_ADDR_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    client_addr: str
    server_time: int
    def __init__(self, client_addr: _Optional[str] = ..., server_time: _Optional[int] = ...) -> None: ...

class RaftLogStatus(_message.Message):
    __slots__ = ("cache_items", "cache_used_size", "wal_total_size", "wal_open_chunk_size", "wal_offset", "wal_closed_chunk_count", "wal_closed_chunk_total_size", "wal_closed_chunk_sizes")
    class WalClosedChunkSizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CACHE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    CACHE_USED_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAL_TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAL_OPEN_CHUNK_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WAL_CLOSED_CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAL_CLOSED_CHUNK_TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAL_CLOSED_CHUNK_SIZES_FIELD_NUMBER: _ClassVar[int]
    cache_items: int
    cache_used_size: int
    wal_total_size: int
    wal_open_chunk_size: int
    wal_offset: int
    wal_closed_chunk_count: int
    wal_closed_chunk_total_size: int
    wal_closed_chunk_sizes: _containers.ScalarMap[str, int]
    def __init__(self, cache_items: _Optional[int] = ..., cache_used_size: _Optional[int] = ..., wal_total_size: _Optional[int] = ..., wal_open_chunk_size: _Optional[int] = ..., wal_offset: _Optional[int] = ..., wal_closed_chunk_count: _Optional[int] = ..., wal_closed_chunk_total_size: _Optional[int] = ..., wal_closed_chunk_sizes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("id", "binary_version", "data_version", "endpoint", "raft_log_size", "state", "is_leader", "current_term", "last_log_index", "last_applied", "snapshot_last_log_id", "purged", "leader", "replication", "voters", "non_voters", "last_seq", "snapshot_key_count", "raft_log_status", "learners", "data_size_bytes", "quota_bytes", "read_only", "read_only_since_ms", "drained")
    class ReplicationEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    BINARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RAFT_LOG_SIZE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_APPLIED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_LAST_LOG_ID_FIELD_NUMBER: _ClassVar[int]
    PURGED_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    NON_VOTERS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    RAFT_LOG_STATUS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    DATA_SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    id: int
    binary_version: str
    data_version: str
    endpoint: str
    raft_log_size: int
    state: str
    is_leader: bool
    current_term: int
    last_log_index: int
    last_applied: str
    snapshot_last_log_id: str
    purged: str
    leader: str
    replication: _containers.ScalarMap[int, str]
    voters: _containers.RepeatedScalarFieldContainer[str]
    non_voters: _containers.RepeatedScalarFieldContainer[str]
    last_seq: int
    snapshot_key_count: int
    raft_log_status: RaftLogStatus
    learners: _containers.RepeatedCompositeFieldContainer[LearnerStatus]
    data_size_bytes: int
    quota_bytes: int
    read_only: str
    read_only_since_ms: int
    drained: bool
    def __init__(self, id: _Optional[int] = ..., binary_version: _Optional[str] = ..., data_version: _Optional[str] = ..., endpoint: _Optional[str] = ..., raft_log_size: _Optional[int] = ..., state: _Optional[str] = ..., is_leader: _Optional[bool] = ..., current_term: _Optional[int] = ..., last_log_index: _Optional[int] = ..., last_applied: _Optional[str] = ..., snapshot_last_log_id: _Optional[str] = ..., purged: _Optional[str] = ..., leader: _Optional[str] = ..., replication: _Optional[_Mapping[int, str]] = ..., voters: _Optional[_Iterable[str]] = ..., non_voters: _Optional[_Iterable[str]] = ..., last_seq: _Optional[int] = ..., snapshot_key_count: _Optional[int] = ..., raft_log_status: _Optional[_Union[RaftLogStatus, _Mapping]] = ..., learners: _Optional[_Iterable[_Union[LearnerStatus, _Mapping]]] = ..., data_size_bytes: _Optional[int] = ..., quota_bytes: _Optional[int] = ..., read_only: _Optional[str] = ..., read_only_since_ms: _Optional[int] = ..., drained: _Optional[bool] = ...) -> None: ...

class LearnerStatus(_message.Message):
    __slots__ = ("id", "learner_for_ms", "caught_up")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEARNER_FOR_MS_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    id: int
    learner_for_ms: int
    caught_up: bool
    def __init__(self, id: _Optional[int] = ..., learner_for_ms: _Optional[int] = ..., caught_up: _Optional[bool] = ...) -> None: ...
