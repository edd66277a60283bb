"""Every replicated command, a row each: its tag, its fields and its reply. Checked for completeness at import.

The rows are the format of the log and of forwarded requests: append rows and never change one that a release has
written; `tests/data/wire/` holds their bytes. What a command means, its validation and its effects, stands in the second
table, `state/command_rules.py`. The rows of `COMMANDS` and `REPLIES` stand last, below the parts they are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar, get_args

from metasrv.model import commands as c
from metasrv.model.errors import InvariantError
from metasrv.model.migration import MigratedRecord, MigrationStep
from metasrv.model.shapes import (
    BOOLEAN,
    BYTES,
    INTEGER,
    STRING,
    UNSIGNED,
    UNSIGNED_OR_NONE,
    Row,
    Shape,
    enumeration,
    optional,
    record,
    row,
    sequence,
    tagged,
    tagged_sequence,
)
from metasrv.model.types import Endpoint, KVMeta, Node, SeqV

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Request(NamedTuple, Generic[Asked, Answer]):
    """A command or an operation of a transaction: its own row, and the row of what answers it."""

    row: Row[Asked]
    answer: Row[Answer]

    @property
    def kind(self) -> type[Asked]:
        return self.row.kind


def request(tag: int, kind: type[Asked], answered: Row[Answer], /, **fields: Shape[Any]) -> Request[Asked, Answer]:
    return Request(row(tag, kind, **fields), answered)


# ----------------------------------------------------------------------------- parts

META = record(KVMeta, expire_at=UNSIGNED_OR_NONE, proposed_at_ms=UNSIGNED_OR_NONE)
STORED = optional(record(SeqV, seq=UNSIGNED, data=BYTES, meta=optional(META)))
NODE = record(
    Node,
    node_id=UNSIGNED,
    endpoint=record(Endpoint, addr=STRING, port=UNSIGNED),
    grpc_api_addr=STRING,
    grpc_api_advertise_address=optional(STRING),
)
MATCH_SEQ = record(c.MatchSeq, kind=enumeration(c.MatchKind), seq=UNSIGNED)


def _read_condition(tree: Any) -> c.Condition:
    """By hand: the target says whether the operand is bytes or a number."""
    key, target, operand, comparison = tree
    kind = c.Target(target)
    read_operand = BYTES.read if kind is c.Target.VALUE else UNSIGNED.read
    return c.Condition(STRING.read(key), kind, read_operand(operand), c.Comparison(comparison))


CONDITIONS = sequence(Shape(_read_condition))
_COMBINE = enumeration(c.Combine)


def _read_expression(tree: Any) -> c.Expression:
    """By hand: a tree of itself."""
    combine, expressions, conditions = tree
    return c.Expression(_COMBINE.read(combine), tuple(map(_read_expression, expressions)), CONDITIONS.read(conditions))


# ----------------------------------------------------------------------------- operations of transactions

GET_RESPONSE = row(0, c.GetResponse, key=STRING, value=STORED)
PUT_RESPONSE = row(1, c.PutResponse, key=STRING, prev=STORED, current=STORED)
DELETE_RESPONSE = row(2, c.DeleteResponse, key=STRING, success=BOOLEAN, prev=STORED)
DELETE_BY_PREFIX_RESPONSE = row(3, c.DeleteByPrefixResponse, prefix=STRING, count=UNSIGNED)
FETCH_INCREASE_RESPONSE = row(
    4, c.FetchIncreaseResponse, key=STRING, before_seq=UNSIGNED, before=UNSIGNED, after_seq=UNSIGNED, after=UNSIGNED
)
RESPONSES: tuple[Row[Any], ...] = (
    GET_RESPONSE,
    PUT_RESPONSE,
    DELETE_RESPONSE,
    DELETE_BY_PREFIX_RESPONSE,
    FETCH_INCREASE_RESPONSE,
)

GET = request(0, c.Get, GET_RESPONSE, key=STRING)
PUT = request(
    1,
    c.Put,
    PUT_RESPONSE,
    key=STRING,
    value=BYTES,
    expire_at=UNSIGNED_OR_NONE,
    ttl_ms=UNSIGNED_OR_NONE,
    match_seq=UNSIGNED_OR_NONE,
)
DELETE = request(2, c.Delete, DELETE_RESPONSE, key=STRING, match_seq=UNSIGNED_OR_NONE)
DELETE_BY_PREFIX = request(3, c.DeleteByPrefix, DELETE_BY_PREFIX_RESPONSE, prefix=STRING)
FETCH_INCREASE = request(
    4,
    c.FetchIncrease,
    FETCH_INCREASE_RESPONSE,
    key=STRING,
    delta=INTEGER,
    match_seq=UNSIGNED_OR_NONE,
    floor=UNSIGNED,
)
PUT_SEQUENTIAL = request(
    5,
    c.PutSequential,
    PUT_RESPONSE,
    prefix=STRING,
    sequence_key=STRING,
    value=BYTES,
    expires_at_ms=UNSIGNED_OR_NONE,
    ttl_ms=UNSIGNED_OR_NONE,
)
OPERATIONS: tuple[Request[Any, Any], ...] = (GET, PUT, DELETE, DELETE_BY_PREFIX, FETCH_INCREASE, PUT_SEQUENTIAL)

_RESPONSE_LIST = tagged_sequence(RESPONSES)
_OPERATION_LIST = tagged_sequence([operation.row for operation in OPERATIONS])
_BRANCHES = sequence(record(c.Branch, predicate=optional(Shape(_read_expression)), operations=_OPERATION_LIST))

# ----------------------------------------------------------------------------- replies

UPSERT_REPLY = row(0, c.UpsertReply, prev=STORED, result=STORED)
TRANSACTION_REPLY = row(1, c.TransactionReply, success=BOOLEAN, responses=_RESPONSE_LIST, execution_path=STRING)
BRANCH_TRANSACTION_REPLY = row(2, c.BranchTransactionReply, executed_branch=UNSIGNED_OR_NONE, responses=_RESPONSE_LIST)
NODE_REPLY = row(3, c.NodeReply, prev=optional(NODE), current=optional(NODE))
FEATURE_REPLY = row(4, c.FeatureReply, enabled=sequence(STRING))
SECRET_REPLY = row(5, c.SecretReply, secret=BYTES)
ERROR_REPLY = row(6, c.ErrorReply, text=STRING)
REPLACE_SECRET_REPLY = row(7, c.ReplaceSecretReply, replaced=BOOLEAN, secret=optional(BYTES))
MIGRATION_REPLY = row(
    8, c.MigrationReply, refused=STRING, source=STRING, run=UNSIGNED, last_seq=UNSIGNED, key_count=UNSIGNED
)
LIMITS_REPLY = row(9, c.LimitsReply, read_only=optional(STRING), quota_bytes=UNSIGNED)
REFUSED_REPLY = row(10, c.RefusedReply, text=STRING)
REPLIES: tuple[Row[Any], ...] = (
    UPSERT_REPLY,
    TRANSACTION_REPLY,
    BRANCH_TRANSACTION_REPLY,
    NODE_REPLY,
    FEATURE_REPLY,
    SECRET_REPLY,
    ERROR_REPLY,
    REPLACE_SECRET_REPLY,
    MIGRATION_REPLY,
    LIMITS_REPLY,
    REFUSED_REPLY,
)

# ----------------------------------------------------------------------------- commands

UPSERT = request(
    0,
    c.Upsert,
    UPSERT_REPLY,
    key=STRING,
    match=MATCH_SEQ,
    operation=enumeration(c.Operation),
    value=BYTES,
    expire_at=UNSIGNED_OR_NONE,
    ttl_ms=UNSIGNED_OR_NONE,
)
TRANSACTION = request(
    1,
    c.Transaction,
    TRANSACTION_REPLY,
    branches=_BRANCHES,
    conditions=CONDITIONS,
    if_then=_OPERATION_LIST,
    else_then=_OPERATION_LIST,
)
BRANCH_TRANSACTION = request(2, c.BranchTransaction, BRANCH_TRANSACTION_REPLY, branches=_BRANCHES)
ADD_NODE = request(3, c.AddNode, NODE_REPLY, node=NODE, overriding=BOOLEAN)
REMOVE_NODE = request(4, c.RemoveNode, NODE_REPLY, node_id=UNSIGNED)
SET_FEATURE = request(5, c.SetFeature, FEATURE_REPLY, feature=STRING, enable=BOOLEAN)
SET_CLUSTER_SECRET = request(6, c.SetClusterSecret, SECRET_REPLY, name=STRING, secret=BYTES)
REPLACE_SECRET = request(
    7, c.ReplaceSecret, REPLACE_SECRET_REPLY, name=STRING, expected=optional(BYTES), secret=optional(BYTES)
)
MIGRATED_RECORD = record(
    MigratedRecord,
    key=STRING,
    seq=UNSIGNED,
    data=optional(BYTES),
    expire_at=UNSIGNED_OR_NONE,
    proposed_at_ms=UNSIGNED,
)
MIGRATE = request(
    8,
    c.Migrate,
    MIGRATION_REPLY,
    step=enumeration(MigrationStep),
    run=UNSIGNED,
    source=STRING,
    last_seq=UNSIGNED,
    count=UNSIGNED,
    records=sequence(MIGRATED_RECORD),
)
SET_READ_ONLY = request(9, c.SetReadOnly, LIMITS_REPLY, read_only=optional(STRING))
SET_QUOTA = request(10, c.SetQuota, LIMITS_REPLY, quota_bytes=UNSIGNED)
COMMANDS: tuple[Request[Any, Any], ...] = (
    UPSERT,
    TRANSACTION,
    BRANCH_TRANSACTION,
    ADD_NODE,
    REMOVE_NODE,
    SET_FEATURE,
    SET_CLUSTER_SECRET,
    REPLACE_SECRET,
    MIGRATE,
    SET_READ_ONLY,
    SET_QUOTA,
)


# ----------------------------------------------------------------------------- completeness


def check_table(what: str, union: Any, rows: Sequence[Row[Any]]) -> None:
    """Raise InvariantError unless `rows` has exactly one row for every type of `union`, and no other row."""
    declared = [row.kind for row in rows]
    for kind in get_args(union):
        if declared.count(kind) != 1:
            found = "no row" if kind not in declared else "more than one row"
            raise InvariantError(f"{what} {kind.__name__} has {found} in model/command_table.py (tag, fields, answer)")
    for kind in declared:
        if kind not in get_args(union):
            raise InvariantError(f"{kind.__name__} has a row in model/command_table.py and is no {what} of commands.py")


check_table("command", c.Command, [command.row for command in COMMANDS])
check_table("reply", c.Reply, REPLIES)
check_table("operation", c.TransactionOperation, [operation.row for operation in OPERATIONS])
check_table("response", c.OperationResponse, RESPONSES)

ANY_COMMAND = tagged([command.row for command in COMMANDS])
ANY_REPLY = tagged(REPLIES)
