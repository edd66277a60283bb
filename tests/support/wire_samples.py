"""One sample of every shape that is stored in the log or sent between nodes, by name.

`tests/data/wire/format-1.txt` holds the bytes of each. A change of a command's fields adds samples, and their bytes, and
leaves the lines that are there alone: nodes of the release before must be able to read them.
"""

from __future__ import annotations

from metasrv.model import commands as c
from metasrv.model.entries import MembershipEntry, NoopEntry, RegularEntry
from metasrv.model.migration import MigratedRecord, MigrationStep
from metasrv.model.types import Endpoint, KVMeta, Member, Membership, Node, SeqV

U64 = 2**64 - 1
KEY = "databases/é/\U0010ffff"
NODE = Node(3, Endpoint("10.0.0.3", 28103), "0.0.0.0:9193", "meta-3:9193")
RECORD = SeqV(7, b"\x00\xffvalue", KVMeta(1_700_000_000_123, 1_699_999_999_999))
PLAIN_RECORD = SeqV(U64, b"", None)

OPERATIONS: dict[str, c.TransactionOperation] = {
    "get": c.Get(KEY),
    "put": c.Put(KEY, b"value"),
    "put with everything": c.Put("", b"", U64, 2**32, 0),
    "delete": c.Delete(KEY),
    "delete matching": c.Delete(KEY, 128),
    "delete by prefix": c.DeleteByPrefix("databases/"),
    "fetch and increase": c.FetchIncrease(KEY, 1),
    "fetch and increase with everything": c.FetchIncrease(KEY, -(2**63), U64, 2**63),
    "put sequential": c.PutSequential("queue/", "queue-number", b"job"),
    "put sequential with everything": c.PutSequential("queue/", "queue-number", b"job", 10**11, 1),
}
CONDITIONS = (
    c.Condition("none", c.Target.NONE, 0, c.Comparison.EQ),
    c.Condition("value", c.Target.VALUE, b"\x80", c.Comparison.GT),
    c.Condition("seq", c.Target.SEQ, U64, c.Comparison.GE),
    c.Condition("prefix", c.Target.KEYS_WITH_PREFIX, 3, c.Comparison.LT),
    c.Condition("seq", c.Target.SEQ, 1, c.Comparison.LE),
    c.Condition("seq", c.Target.SEQ, 1, c.Comparison.NE),
)
EXPRESSION = c.Expression(
    c.Combine.OR,
    (c.Expression(c.Combine.AND, (), CONDITIONS[:2]), c.Expression(c.Combine.OR, (), ())),
    CONDITIONS[2:3],
)
BRANCHES = (c.Branch(EXPRESSION, (OPERATIONS["put"], OPERATIONS["get"])), c.Branch(None, ()))

COMMANDS: dict[str, c.Command] = {
    "upsert": c.Upsert(KEY, c.MatchSeq(c.MatchKind.ANY), c.Operation.UPDATE, b"value"),
    "upsert with everything": c.Upsert(KEY, c.MatchSeq(c.MatchKind.EXACT, U64), c.Operation.UPDATE, b"v", 1, 2),
    "upsert deleting": c.Upsert("", c.MatchSeq(c.MatchKind.GREATER_EQUAL, 1), c.Operation.DELETE),
    "upsert touching": c.Upsert("k", c.MatchSeq(c.MatchKind.ANY), c.Operation.AS_IS, b"", None, 60_000),
    "empty transaction": c.Transaction((), (), (), ()),
    "transaction": c.Transaction(BRANCHES, CONDITIONS, tuple(OPERATIONS.values()), (c.Get("else"),)),
    "empty branch transaction": c.BranchTransaction(()),
    "branch transaction": c.BranchTransaction(BRANCHES),
    "add node": c.AddNode(NODE, False),
    "add node overriding": c.AddNode(NODE._replace(node_id=U64, grpc_api_advertise_address=None), True),
    "remove node": c.RemoveNode(300),
    "set feature": c.SetFeature("dummy", True),
    "unset feature": c.SetFeature("dummy", False),
    "set cluster secret": c.SetClusterSecret("token", bytes(range(32))),
    "replace secret": c.ReplaceSecret("user/é", b"\x01old", b"\xffnew"),
    "replace secret without any": c.ReplaceSecret("", None, None),
    "migrate": c.Migrate(MigrationStep.BEGIN, 1, "cluster"),
    "migrate with everything": c.Migrate(
        MigrationStep.STORE,
        2**32,
        "",
        2**63 - 1,
        256,
        (MigratedRecord(KEY, 7, b"\x00value", U64, 1), MigratedRecord("gone", 128, None)),
    ),
    "set read-only": c.SetReadOnly("moving to é"),
    "set writable": c.SetReadOnly(None),
    "set quota": c.SetQuota(U64),
    **{f"transaction of {name}": c.Transaction((), (), (operation,), ()) for name, operation in OPERATIONS.items()},
}

RESPONSES: tuple[c.OperationResponse, ...] = (
    c.GetResponse(KEY, RECORD),
    c.GetResponse("absent", None),
    c.PutResponse(KEY, None, RECORD),
    c.PutResponse(KEY, PLAIN_RECORD, None),
    c.DeleteResponse(KEY, True, RECORD),
    c.DeleteResponse(KEY, False, None),
    c.DeleteByPrefixResponse("databases/", 4_000_000_000),
    c.FetchIncreaseResponse(KEY, 1, 2, 3, U64),
)
REPLIES: dict[str, c.Reply] = {
    "upsert reply": c.UpsertReply(RECORD, SeqV(8, b"new", KVMeta(None, 1))),
    "empty upsert reply": c.UpsertReply(None, None),
    "transaction reply": c.TransactionReply(True, RESPONSES, "operation:1"),
    "empty transaction reply": c.TransactionReply(False, (), "else"),
    "branch transaction reply": c.BranchTransactionReply(1, RESPONSES),
    "empty branch transaction reply": c.BranchTransactionReply(None, ()),
    "node reply": c.NodeReply(NODE, None),
    "empty node reply": c.NodeReply(None, NODE._replace(grpc_api_advertise_address=None)),
    "feature reply": c.FeatureReply(("dummy", "dummy_feature2")),
    "empty feature reply": c.FeatureReply(()),
    "secret reply": c.SecretReply(b"\x00secret"),
    "error reply": c.ErrorReply("the command cannot be applied"),
    "limits reply": c.LimitsReply("", 2**40),
    "limits reply without any": c.LimitsReply(None, 0),
    "refused reply": c.RefusedReply("the cluster is read-only"),
    "replace secret reply": c.ReplaceSecretReply(True, b"\xffnew"),
    "empty replace secret reply": c.ReplaceSecretReply(False, None),
    "migration reply": c.MigrationReply("", "cluster", 2, 300, 70_000),
    "refusing migration reply": c.MigrationReply("no migration is under way", "", 0, 0, 0),
}

MEMBERSHIP = Membership(
    {1: Member(Endpoint("a", 1), "i1"), 2: Member(Endpoint("::1", 65535), "i2")}, {3: Member(Endpoint("b", 0), "")}
)
LATER_COMMANDS = (c.ReplaceSecret,)
"""Not yet there when the entry of every command was recorded, which stays as it is; they have an entry of their own."""
MIGRATION_COMMANDS = (c.Migrate,)
"""Later than these."""
LIMIT_COMMANDS = (c.SetReadOnly, c.SetQuota)
"""Not yet there when any of these was recorded."""
ENTRIES: dict[str, RegularEntry | NoopEntry | MembershipEntry] = {
    "entry without commands": RegularEntry(0, 1, ()),
    "entry of every command": RegularEntry(
        1_700_000_000_000,
        2,
        tuple(
            each
            for each in COMMANDS.values()
            if not isinstance(each, LATER_COMMANDS + MIGRATION_COMMANDS + LIMIT_COMMANDS)
        ),
    ),
    "entry of later commands": RegularEntry(
        1_700_000_000_000, 2, tuple(each for each in COMMANDS.values() if isinstance(each, LATER_COMMANDS))
    ),
    "entry of migrations": RegularEntry(
        1_700_000_000_000, 2, tuple(each for each in COMMANDS.values() if isinstance(each, MIGRATION_COMMANDS))
    ),
    "entry of limits": RegularEntry(
        1_700_000_000_000, 2, tuple(each for each in COMMANDS.values() if isinstance(each, LIMIT_COMMANDS))
    ),
    "no-op entry": NoopEntry(3),
    "membership entry": MembershipEntry(1, Membership(), MEMBERSHIP),
}
