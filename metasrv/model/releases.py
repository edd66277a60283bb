"""What each release writes and reads, and which features and commands it knows.

For `metasrv downgrade-check` and the table in docs/upgrading.md. The last row of `RELEASES` is this one, before and after
it is released; a test compares it with the code, and the row of an earlier release with its wheel. After a release keep
its wheel and directories (tests/data/releases/README.md) and add a row for the next. Rows of releases never change.

Policy, kept by tests: a release reads the files of the one before, speaks its peer protocol, and writes what it can read,
unless a feature is on that it does not know. Knows no files and no sockets; pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Format(StrEnum):
    """Everything with a version that outlives a process, or that two processes have to agree on."""

    DIRECTORY = "data directory (`node.json`)"
    LOG = "raft log (`raft.db`)"
    ENTRY = "log entry"
    STATE = "state file (`state.db`)"
    SNAPSHOT = "snapshot"
    USER = "user in the state"
    MIGRATION = "marker of a migration in the state"
    PEERS = "peer protocol"
    REQUESTS = "requests between nodes (forwarded commands)"
    SUMMARY = "summary of a node for the console"
    EXPORT = "export lines"
    ARCHIVE = "archive"
    ENCRYPTED = "encrypted archive"
    SERVER = "client protocol: what a server announces, the oldest client that it lets in"
    CLIENT = "client protocol: what metasrv's client announces, the oldest server that it talks to"


class Versions(NamedTuple):
    """Versions of one format; empty where a release does not know it."""

    writes: tuple[str, ...]
    reads: tuple[str, ...]
    """For the client protocol, the oldest."""


class Release(NamedTuple):
    """What one release knows."""

    name: str
    formats: Mapping[Format, Versions]
    commands: frozenset[str]
    """Commands that it reads in the log and in requests of other nodes, by their names in `model/commands.py`."""
    operations: frozenset[str]
    """Operations of transactions that it reads."""
    features: frozenset[str]


class Feature(NamedTuple):
    """What a feature of the cluster brings that releases which do not know it cannot read, and how to be rid of it."""

    name: str
    commands: frozenset[str] = frozenset()
    """Commands that the log holds only once the feature is on."""
    way_back: str = ""
    """What to do besides turning it off, when something of it is in the state."""


LOG_KEEPING_SPACE = "1"
LOG_GIVING_SPACE_BACK = "1 (vacuum)"
"""One version of the tables; releases that do not give free space back refuse a file that can."""

FEATURES: tuple[Feature, ...] = (
    Feature("dummy"),
    Feature("dummy_feature2"),
    Feature("users", frozenset({"ReplaceSecret"})),
    Feature(
        "migration",
        frozenset({"Migrate"}),
        "finish the migration (`metactl migrate … --cut-over`) or end it (`metactl migrate --to … --abort`)",
    ),
    Feature(
        "write-limits",
        frozenset({"SetReadOnly", "SetQuota"}),
        "`metactl cluster read-only off`, and `quota_bytes = 0` in the configuration of every node",
    ),
)


def _both(*versions: str) -> Versions:
    return Versions(versions, versions)


_FORMATS_0_1: Mapping[Format, Versions] = MappingProxyType(
    {
        Format.DIRECTORY: _both("2"),
        Format.LOG: _both(LOG_KEEPING_SPACE),
        Format.ENTRY: _both("1"),
        Format.STATE: _both("1"),
        Format.SNAPSHOT: _both("1"),
        Format.USER: _both(),
        Format.MIGRATION: _both(),
        Format.PEERS: _both("1"),
        Format.REQUESTS: _both(),
        Format.SUMMARY: _both(),
        Format.EXPORT: Versions(("V004",), ()),
        Format.ARCHIVE: _both(),
        Format.ENCRYPTED: _both(),
        Format.SERVER: Versions(("260629.2.0",), ("1.2.676",)),
        Format.CLIENT: Versions(("260629.2.0",), ("260217.0.0",)),
    }
)
_FORMATS_0_2: Mapping[Format, Versions] = MappingProxyType(
    {
        Format.DIRECTORY: _both("2"),
        Format.LOG: Versions((LOG_GIVING_SPACE_BACK,), (LOG_KEEPING_SPACE, LOG_GIVING_SPACE_BACK)),
        Format.ENTRY: _both("1"),
        Format.STATE: Versions(("2",), ("1", "2")),
        Format.SNAPSHOT: Versions(("2",), ("1", "2")),
        Format.USER: _both("1"),
        Format.MIGRATION: _both("1"),
        Format.PEERS: _both("2"),
        Format.REQUESTS: _both("1"),
        Format.SUMMARY: _both("1"),
        Format.EXPORT: Versions(("V004",), ("V002", "V003", "V004")),
        Format.ARCHIVE: _both("1", "2"),
        Format.ENCRYPTED: _both("1"),
        Format.SERVER: Versions(("260629.2.0",), ("1.2.676",)),
        Format.CLIENT: Versions(("260629.2.0",), ("260217.0.0",)),
    }
)
_FORMATS_0_3: Mapping[Format, Versions] = MappingProxyType({**_FORMATS_0_2, Format.SUMMARY: Versions(("2",), ("1", "2"))})
_COMMANDS_0_1 = frozenset(
    {"Upsert", "Transaction", "BranchTransaction", "AddNode", "RemoveNode", "SetFeature", "SetClusterSecret"}
)
_COMMANDS_0_2 = _COMMANDS_0_1 | {"ReplaceSecret", "Migrate", "SetReadOnly", "SetQuota"}
_OPERATIONS_0_1 = frozenset({"Get", "Put", "Delete", "DeleteByPrefix", "FetchIncrease", "PutSequential"})
_FEATURES_0_1 = frozenset({"dummy", "dummy_feature2"})
_FEATURES_0_2 = _FEATURES_0_1 | {"users", "migration", "write-limits"}

RELEASES: tuple[Release, ...] = (
    # Builds before the first release, the last of them.
    Release("0.1", _FORMATS_0_1, _COMMANDS_0_1, _OPERATIONS_0_1, _FEATURES_0_1),
    Release("0.2.0", _FORMATS_0_2, _COMMANDS_0_2, _OPERATIONS_0_1, _FEATURES_0_2),
    Release("0.3.0", _FORMATS_0_3, _COMMANDS_0_2, _OPERATIONS_0_1, _FEATURES_0_2),
)
"""From the oldest to this one."""
THIS = RELEASES[-1]


def release_named(name: str) -> Release | None:
    """The release of this name; None for one that is not known here, as every later one."""
    return next((release for release in RELEASES if release.name == name), None)
