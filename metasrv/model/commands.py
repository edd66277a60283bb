"""The replicated commands and their replies, as plain named tuples (docs/contract/grpc.md sections c and d).

A command says what to do and carries no time: the log entry that holds it does (invariant 2). Every
command has exactly one reply type. Named tuples because the hot path packs them as they are.
Knows neither their encoding (`command_table.py`) nor their meaning (`state/command_rules.py`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from metasrv.model.migration import MigratedRecord, MigrationStep
from metasrv.model.types import Node, SeqV

# ----------------------------------------------------------------------------- parts


class MatchKind(IntEnum):
    """How an upsert tests the current sequence number (docs/contract/grpc.md section d.2); an absent key has 0."""

    ANY = 0
    EXACT = 1
    GREATER_EQUAL = 2


class MatchSeq(NamedTuple):
    kind: MatchKind
    seq: int = 0


class Operation(IntEnum):
    """What an upsert does with the value."""

    UPDATE = 0
    DELETE = 1
    AS_IS = 2


class Comparison(IntEnum):
    """TxnCondition.ConditionResult; any other number counts as EQ."""

    EQ = 0
    GT = 1
    GE = 2
    LT = 3
    LE = 4
    NE = 5


class Target(IntEnum):
    """Which member of TxnCondition's `target` is set."""

    NONE = 0
    VALUE = 1
    SEQ = 2
    KEYS_WITH_PREFIX = 3


class Condition(NamedTuple):
    """`key`'s value, sequence number or prefix count, compared with `operand`."""

    key: str
    target: Target
    operand: int | bytes
    comparison: Comparison


class Combine(IntEnum):
    AND = 0
    OR = 1


class Expression(NamedTuple):
    """A boolean tree: its children are `expressions`, then `conditions`."""

    combine: Combine
    expressions: tuple[Expression, ...]
    conditions: tuple[Condition, ...]


# ----------------------------------------------------------------------------- transaction operations


class Get(NamedTuple):
    key: str


class Put(NamedTuple):
    key: str
    value: bytes
    expire_at: int | None = None
    ttl_ms: int | None = None
    match_seq: int | None = None


class Delete(NamedTuple):
    key: str
    match_seq: int | None = None


class DeleteByPrefix(NamedTuple):
    prefix: str


class FetchIncrease(NamedTuple):
    key: str
    delta: int
    match_seq: int | None = None
    floor: int = 0
    """`max_value` on the wire: the counter is raised to it before `delta` is added."""


class PutSequential(NamedTuple):
    prefix: str
    sequence_key: str
    value: bytes
    expires_at_ms: int | None = None
    ttl_ms: int | None = None


TransactionOperation = Get | Put | Delete | DeleteByPrefix | FetchIncrease | PutSequential


class Branch(NamedTuple):
    """Operations that run when `predicate` holds; None is true."""

    predicate: Expression | None
    operations: tuple[TransactionOperation, ...]


# ----------------------------------------------------------------------------- commands


class Upsert(NamedTuple):
    """KvApi's UpsertKV. Reply: `UpsertReply`."""

    key: str
    match: MatchSeq
    operation: Operation
    value: bytes = b""
    expire_at: int | None = None
    ttl_ms: int | None = None


class Transaction(NamedTuple):
    """TxnRequest. Branch order: `branches`, (`conditions`, `if_then`), `else_then`. Reply: `TransactionReply`."""

    branches: tuple[Branch, ...]
    conditions: tuple[Condition, ...]
    if_then: tuple[TransactionOperation, ...]
    else_then: tuple[TransactionOperation, ...]


TICK = Transaction((), (), (), ())
"""Changes nothing by itself. The entry that holds it deletes what has expired, as every entry with a command does."""


class BranchTransaction(NamedTuple):
    """KvTransactionRequest. Reply: `BranchTransactionReply`."""

    branches: tuple[Branch, ...]


class AddNode(NamedTuple):
    """Registers a node's addresses; an existing record stays unless `overriding`. Reply: `NodeReply`."""

    node: Node
    overriding: bool


class RemoveNode(NamedTuple):
    """Removes a node's record. Reply: `NodeReply`."""

    node_id: int


USERS_FEATURE = "users"
"""Turned on once every member knows `ReplaceSecret`: users beyond root, and new keys for tokens."""
MIGRATION_FEATURE = "migration"
"""Turned on once every member knows `Migrate`: this cluster may take the records of another."""
LIMITS_FEATURE = "write-limits"
"""Turned on once every member knows `SetReadOnly` and `SetQuota`, and what they mean for the commands after them."""
KNOWN_FEATURES = ("dummy", "dummy_feature2", USERS_FEATURE, MIGRATION_FEATURE, LIMITS_FEATURE)
"""Names that the admin API accepts, in the order of its list; the log may hold others, from a newer version."""


class SetFeature(NamedTuple):
    """Turns a feature flag on or off. Reply: `FeatureReply`."""

    feature: str
    enable: bool


class SetClusterSecret(NamedTuple):
    """Stores a named secret once; the first writer wins. Reply: `SecretReply`."""

    name: str
    secret: bytes


TOKEN_KEY_NAME = "grpc-token-key"  # noqa: S105 - the name of the secret
"""The secret that signs the tokens of clients."""


class ReplaceSecret(NamedTuple):
    """Makes `secret` the named secret if that is `expected` now; None is none. Reply: `ReplaceSecretReply`.

    Users are secrets with reserved names (`model/users.py`). Releases before it cannot read it, so it is only proposed
    while the feature `USERS_FEATURE` is on.
    """

    name: str
    expected: bytes | None
    secret: bytes | None


class Migrate(NamedTuple):
    """A step of moving another cluster's records into this one. Reply: `MigrationReply`.

    Between BEGIN and FINISH or ABORT other writes are refused, and nothing expires here: it is the other cluster that
    deletes. Releases before it cannot read it, so it is only proposed while the feature `MIGRATION_FEATURE` is on.
    """

    step: MigrationStep
    run: int
    """Counts who leads the migration; a step of an earlier run is refused."""
    source: str = ""
    """BEGIN: the cluster that the records come from."""
    last_seq: int = 0
    """The last sequence number that is known to be given out there; the one here is raised to it."""
    count: int = 0  # type: ignore[assignment]  # the word of the wire hides tuple.count
    records: tuple[MigratedRecord, ...] = ()


class SetReadOnly(NamedTuple):
    """Refuses all writes of clients from this entry on, or takes them again. Reply: `LimitsReply`.

    As `ReplaceSecret`, only proposed while its feature is on: `LIMITS_FEATURE`.
    """

    read_only: str | None
    """The reason, perhaps empty; None to take writes again."""


class SetQuota(NamedTuple):
    """How many bytes keys and values may take together, 0 for any number. Reply: `LimitsReply`.

    As `SetReadOnly`, only proposed while `LIMITS_FEATURE` is on.
    """

    quota_bytes: int


Command = (
    Upsert
    | Transaction
    | BranchTransaction
    | AddNode
    | RemoveNode
    | SetFeature
    | SetClusterSecret
    | ReplaceSecret
    | Migrate
    | SetReadOnly
    | SetQuota
)


# ----------------------------------------------------------------------------- replies


class GetResponse(NamedTuple):
    key: str
    value: SeqV | None


class PutResponse(NamedTuple):
    """Also the answer to `PutSequential`, with the full key."""

    key: str
    prev: SeqV | None
    current: SeqV | None


class DeleteResponse(NamedTuple):
    key: str
    success: bool
    prev: SeqV | None


class DeleteByPrefixResponse(NamedTuple):
    prefix: str
    count: int  # type: ignore[assignment]  # the wire's name hides tuple.count


class FetchIncreaseResponse(NamedTuple):
    key: str
    before_seq: int
    before: int
    after_seq: int
    after: int


OperationResponse = GetResponse | PutResponse | DeleteResponse | DeleteByPrefixResponse | FetchIncreaseResponse


class UpsertReply(NamedTuple):
    prev: SeqV | None
    result: SeqV | None


class TransactionReply(NamedTuple):
    success: bool
    responses: tuple[OperationResponse, ...]
    execution_path: str


class BranchTransactionReply(NamedTuple):
    executed_branch: int | None
    responses: tuple[OperationResponse, ...]


class NodeReply(NamedTuple):
    """The record before and after."""

    prev: Node | None
    current: Node | None


class FeatureReply(NamedTuple):
    """Sorted names of the features that are on."""

    enabled: tuple[str, ...]


class SecretReply(NamedTuple):
    """The secret now stored under the name."""

    secret: bytes


class ReplaceSecretReply(NamedTuple):
    """Whether the secret was the expected one, and the secret that is now stored under the name."""

    replaced: bool
    secret: bytes | None


class MigrationReply(NamedTuple):
    """What the cluster says of its migration after a step."""

    refused: str
    """Why nothing was done, in a sentence; empty when it was done."""
    source: str
    """The cluster that records come from; empty when none is migrated."""
    run: int
    last_seq: int
    key_count: int


class ErrorReply(NamedTuple):
    """The command is in the log but asks for something impossible; nothing was changed.

    Validation before the proposal keeps clients from ever seeing it; it exists because `apply` is total.
    """

    text: str


class LimitsReply(NamedTuple):
    """What the cluster does not take now."""

    read_only: str | None
    quota_bytes: int


class RefusedReply(NamedTuple):
    """The cluster does not take this write now; nothing was changed. The text is the whole sentence."""

    text: str


Reply = (
    UpsertReply
    | TransactionReply
    | BranchTransactionReply
    | NodeReply
    | FeatureReply
    | SecretReply
    | ErrorReply
    | ReplaceSecretReply
    | MigrationReply
    | LimitsReply
    | RefusedReply
)
