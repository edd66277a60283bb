"""Whose a key of Databend's catalog is: by the tenant in it, or by the object whose number it has.

The numbers are learnt from the names: `__fd_database/<tenant>/<name>` holds a database's number, and so on. What cannot
be told is an error of the caller: no key is kept or left out by a guess. Pure; runs in a program of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from metasrv.model.errors import BackupError

EVERYBODY = "*"
"""The owner of a key that each tenant needs."""
NOBODY = ""
"""The owner of a key that is not carried over: short-lived, or left behind by something that is gone."""

_TENANT_SECOND = frozenset(
    f"__fd_{name}"
    for name in [
        "autoincrement_storage",
        "background_job",
        "catalog",
        "connection",
        "database",
        "datamask",
        "datamask_id_list",
        "datamask_id_to_name",
        "db_id_list",
        "dictionaries",
        "file_formats",
        "index",
        "mask_policy_apply_table_id",
        "network_policies",
        "object_owners",
        "object_tag_ref",
        "password_policies",
        "procedure",
        "quotas",
        "roles",
        "row_access_policy",
        "row_access_policy_apply_table_id",
        "row_access_policy_by_id",
        "row_access_policy_id_to_name",
        "sequence",
        "sequence_storage",
        "session",
        "settings",
        "share",
        "stage_files",
        "stages",
        "table_count",
        "table_lock",
        "tag",
        "tag_by_id",
        "tag_id_to_name",
        "tag_object_ref",
        "tasks",
        "task_messages",
        "tenant",
        "token",
        "udfs",
        "users",
        "vacuum_watermark_ts",
        "virtual_column",
    ]
)
"""`<prefix>/<tenant>/…`"""

_NUMBER_SECOND = {
    "database_by_id": "database",
    "database_id_to_name": "database",
    "table": "database",
    "table_id_list": "database",
    "dictionaries_by_database": "database",
    "table_by_id": "table",
    "table_id_to_name": "table",
    "table_lvt": "table",
    "table_copied_files": "table",
    "table_copied_file_lock": "table",
    "table_tag": "table",
    "marked_deleted_table_index": "table",
    "marked_deleted_index": "table",
    "index_by_id": "index",
    "index_id_to_name": "index",
    "datamask_by_id": "datamask",
    "catalog_by_id": "catalog",
    "catalog_id_to_name": "catalog",
    "procedure_by_id": "procedure",
    "procedure_id_to_name": "procedure",
    "background_job_by_id": "background_job",
    "share_id": "share",
    "share_id_to_name": "share",
}
"""`__fd_<name>/<number>…`: what the number is of."""

_ORPHANS = frozenset(
    {
        "table",
        "index_by_id",
        "table_lvt",
        "table_copied_files",
        "table_copied_file_lock",
        "table_tag",
        "marked_deleted_table_index",
        "marked_deleted_index",
    }
)
"""What may outlive its database or table, whose own records are gone then."""
_NAMES = frozenset(["database", "table", "index", "datamask", "catalog", "procedure", "background_job", "share"])
"""`__fd_<kind>/…` whose value is the number, as text."""
_LISTS = {"db_id_list": "database", "table_id_list": "table"}
"""`__fd_<name>/…` whose value is a list of numbers, field 1 of a protobuf message."""
_PRIMARY = {"database_by_id": "database", "database_id_to_name": "database", "table_by_id": "table"}
_PREFIX = "__fd_"
_VARINT, _BYTES = 0, 2
_WIDTHS = {1: 8, 5: 4}
"""Bytes of the protobuf wire types that have a fixed width."""


class _Parent(NamedTuple):
    """Where an object's owner is to be found."""

    tenant: str | None
    """None when it is the owner of another object."""
    kind: str
    number: int
    key: str
    """The key that said so."""


class Catalog:
    """What the keys of an export say of who owns what. First every record is learnt, then owners are asked for."""

    def __init__(self) -> None:
        self._parents: dict[tuple[str, int], list[_Parent]] = {}
        self._present: set[tuple[str, int]] = set()

    def learn(self, key: str, value: bytes) -> None:
        """Take in one record. Raises BackupError when a value that has to be understood is not."""
        first, *rest = key.split("/")
        name = first.removeprefix(_PREFIX)
        if not first.startswith(_PREFIX) or not rest:
            return
        if name in _NAMES and len(rest) >= 2:
            self._add(name, _decimal(key, value), key, rest[0])
        elif name in _LISTS:
            for number in _field_one(key, value):
                self._add(_LISTS[name], number, key, rest[0])
        elif name == "index_by_id":
            for table in _field_one(key, value):
                self._add_parent("index", _number(key, rest[0]), _Parent(None, "table", table, key))
        if name in _PRIMARY:
            self._present.add((_PRIMARY[name], _number(key, rest[0])))

    def owner(self, key: str) -> str | None:
        """The tenant, EVERYBODY, NOBODY; None when it cannot be told. Raises BackupError when two own it."""
        parts = key.split("/")
        first, second = parts[0], parts[1] if len(parts) > 1 else ""
        if first in ("_txn_id", "__fd_queries_queue"):
            return NOBODY
        if second.startswith("history_log_"):
            return first
        if first in ("__fd_id_gen", "__fd_explain_perf"):
            return EVERYBODY
        if first == "__fd_warehouses" and second == "v1" and len(parts) > 2:
            return parts[2]
        if second and (first.startswith("__fd_clusters") or first in _TENANT_SECOND):
            return second
        if first == "__fd_share_by" and second == "db" and len(parts) > 2:
            return self._owner_of("database", _number(key, parts[2]))
        name = first.removeprefix(_PREFIX)
        if not second or not first.startswith(_PREFIX) or name not in _NUMBER_SECOND:
            return None
        return self._owner_of_number(name, _number(key, second), parts, key)

    def missing(self, tenant: str) -> Iterator[tuple[str, str]]:
        """Records that a tenant's names speak of and that are not there: the key, and the one that speaks of it."""
        for (kind, number), parents in sorted(self._parents.items()):
            if kind in ("database", "table") and (kind, number) not in self._present:
                owners = (self._owner_of_parent(parent) for parent in parents)
                if any(owner is not None and same_tenant(owner, tenant) for owner in owners):
                    yield f"{_PREFIX}{kind}_by_id/{number}", parents[0].key

    def _owner_of_number(self, name: str, number: int, parts: list[str], key: str) -> str | None:
        kind = _NUMBER_SECOND[name]
        owner = self._owner_of(kind, number)
        if owner is None and name == "marked_deleted_index" and len(parts) > 2:
            owner = self._owner_of("index", _number(key, parts[2]))
        if owner is None and name in _ORPHANS:
            parents = self._parents.get((kind, number), []) if kind == "index" else []
            above = [(parent.kind, parent.number) for parent in parents] or [(kind, number)]
            if not any(place in self._present for place in above):
                return NOBODY
        return owner

    def _owner_of(self, kind: str, number: int) -> str | None:
        owners = {
            owner: parent.key
            for parent in self._parents.get((kind, number), ())
            if (owner := self._owner_of_parent(parent)) is not None
        }
        if len(owners) > 1:
            raise BackupError(f"{kind} {number} has two owners: {' and '.join(sorted(owners.values()))}")
        return next(iter(owners), None)

    def _owner_of_parent(self, parent: _Parent) -> str | None:
        return parent.tenant if parent.tenant is not None else self._owner_of(parent.kind, parent.number)

    def _add(self, kind: str, number: int, key: str, owner: str) -> None:
        if kind == "table":
            self._add_parent(kind, number, _Parent(None, "database", _number(key, owner), key))
        else:
            self._add_parent(kind, number, _Parent(owner, "", 0, key))

    def _add_parent(self, kind: str, number: int, parent: _Parent) -> None:
        self._parents.setdefault((kind, number), []).append(parent)


def same_tenant(segment: str, tenant: str) -> bool:
    """Whether a segment of a key names the tenant; Databend escapes what is not a letter, a digit or `_`."""
    return tenant in (segment, unquote(segment))


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BackupError(f"{key}: {text!r} is no number")
    return int(text)


def _decimal(key: str, value: bytes) -> int:
    try:
        return _number(key, value.decode("ascii"))
    except (UnicodeDecodeError, BackupError) as error:
        raise BackupError(f"{key}: its value is no number in decimal") from error


def _field_one(key: str, value: bytes) -> Iterator[int]:
    """The numbers in field 1 of a protobuf message, packed or not. Raises BackupError."""
    try:
        place = 0
        while place < len(value):
            tag, place = _varint(value, place)
            field, wire_type = tag >> 3, tag & 7
            if wire_type == _VARINT:
                number, place = _varint(value, place)
                if field == 1:
                    yield number
                continue
            size = _WIDTHS.get(wire_type, 0)
            if wire_type == _BYTES:
                size, place = _varint(value, place)
            elif not size:
                raise IndexError
            if place + size > len(value):
                raise IndexError
            if field == 1 and wire_type == _BYTES:
                inner, end = place, place + size
                while inner < end:
                    number, inner = _varint(value, inner)
                    yield number
            place += size
    except IndexError as error:
        raise BackupError(f"{key}: its value is not the message that Databend writes there") from error


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
