"""An export of one tenant: what belongs to it, what is left out, and what is refused because nobody can tell."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest

from metasrv.backup.filtering import TenantFilter
from metasrv.backup.tenants import Catalog, same_tenant
from metasrv.model.errors import BackupError

HEADER = ["header", {"DataHeader": {"key": "header", "value": {"version": "V004"}}}]
LOG = ["raft_log", {"Committed": None}]
SEQUENCES = ["state_machine/0", {"Sequences": {"key": "generic-kv", "value": 900}}]


def record(key: str, value: bytes | str = b"", *, archived: bool = False) -> list[Any]:
    data = value if archived else list(value)
    return ["state_machine/0", {"GenericKV": {"key": key, "value": {"seq": 1, "meta": None, "data": data}}}]


def expire(key: str) -> list[Any]:
    return ["state_machine/0", {"Expire": {"key": {"time_ms": 5, "seq": 1}, "value": {"seq": 1, "key": key}}}]


def numbers(*items: int) -> bytes:
    """A list of Databend: a protobuf message with the numbers in field 1, packed, and a version in field 100."""
    packed = b"".join(varint(item) for item in items)
    return b"\x0a" + varint(len(packed)) + packed + b"\xa0\x06\x28\x12\x02xy"


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


CATALOG = [
    record("__fd_id_gen/table_id", b"400"),
    record("__fd_database/a/default", b"11"),
    record("__fd_db_id_list/a/default", numbers(11, 12)),
    record("__fd_database_by_id/11"),
    record("__fd_database_id_to_name/11"),
    record("__fd_database_by_id/12"),
    record("__fd_table/11/t", b"101"),
    record("__fd_table_id_list/11/t", numbers(101, 300)),
    record("__fd_table_by_id/101"),
    record("__fd_table_by_id/300"),
    record("__fd_table_copied_files/101/f"),
    record("__fd_index/a/i", b"7"),
    record("__fd_index_by_id/7", b"\x08" + varint(101)),
    record("__fd_index_by_id/8", b"\x08" + varint(300)),
    record("__fd_marked_deleted_index/999/7"),
    record("__fd_users/a/root"),
    record("__fd_session/a%2db/x"),
    record("__fd_warehouses/v1/a/w"),
    record("__fd_clusters_v6/a/online/x"),
    record("__fd_share_by/db/11"),
    expire("__fd_session/a%2db/x"),
    expire("__fd_users/a/root"),
    record("__fd_database/b/default", b"22"),
    record("__fd_database_by_id/22"),
    record("__fd_table/22/t", b"202"),
    record("__fd_table_by_id/202"),
    record("__fd_catalog/b/c", b"5"),
    record("__fd_catalog_by_id/5"),
    record("__fd_users/b/root"),
    expire("__fd_users/b/root"),
]
LEFT_BEHIND = [record("__fd_table/77/old", b"1"), record("__fd_table_lvt/500"), record("_txn_id/abc")]


class Filtered:
    def __init__(self, lines: list[Any], tenant: str = "a") -> None:
        data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        self.noted: list[str] = []
        self.filter = TenantFilter(BytesIO(data), "all.json", tenant, self.noted.append)
        self.filter.decide()
        self.lines = [json.loads(line) for line in self.filter.lines()]

    @property
    def keys(self) -> list[str]:
        return [body["GenericKV"]["key"] for _tree, body in self.lines if "GenericKV" in body]


def test_names_numbers_and_what_hangs_on_them() -> None:
    found = Filtered([HEADER, LOG, SEQUENCES, *CATALOG])
    kept = [line for line in CATALOG[:22] if "a%2db" not in json.dumps(line)]
    assert found.lines == [HEADER, SEQUENCES, *kept]
    assert found.filter.report.text() == (
        "filter-tenant: total=33, header=1, raft_log_skipped=1, state_machine=31, kept=21, dropped=10"
    )
    assert found.noted == []


def test_the_other_tenants() -> None:
    assert Filtered([HEADER, *CATALOG], "b").keys == [
        "__fd_id_gen/table_id",
        "__fd_database/b/default",
        "__fd_database_by_id/22",
        "__fd_table/22/t",
        "__fd_table_by_id/202",
        "__fd_catalog/b/c",
        "__fd_catalog_by_id/5",
        "__fd_users/b/root",
    ]
    assert Filtered([HEADER, *CATALOG], "a-b").keys == ["__fd_id_gen/table_id", "__fd_session/a%2db/x"]
    assert Filtered([HEADER, *CATALOG], "c").keys == ["__fd_id_gen/table_id"]
    assert same_tenant("a%2db", "a-b")
    assert not same_tenant("a", "b")


def test_what_is_left_behind_is_left_out_and_named() -> None:
    found = Filtered([HEADER, *CATALOG, *LEFT_BEHIND])
    assert [text.rpartition(": ")[2] for text in found.noted] == [
        "__fd_table/77/old",
        "__fd_table_lvt/500",
        "_txn_id/abc",
    ]
    assert not {"__fd_table/77/old", "__fd_table_lvt/500", "_txn_id/abc"} & set(found.keys)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([record("own/key"), record("other")], r"no tenant that is known \(2 in all\): line 2: own/key; line 3: other"),
        ([record("__fd_table_by_id/5")], "line 2: __fd_table_by_id/5"),
        ([record("__fd_unheard_of/a/x")], "line 2: __fd_unheard_of/a/x"),
        ([expire("gone")], "line 2: gone"),
        ([record("__fd_database/a/x", b"eleven")], "line 2: __fd_database/a/x: its value is no number in decimal"),
        ([record("__fd_db_id_list/a/x", b"\x0a\x05\x01")], "line 2: __fd_db_id_list/a/x: its value is not the message"),
        ([record("__fd_db_id_list/a/x", b"\x0b")], "its value is not the message"),
        ([record("__fd_database_by_id/x1")], "'x1' is no number"),
        ([record("__fd_database/a/x", b"3")], "__fd_database_by_id/3 is missing, and __fd_database/a/x speaks of it"),
        (
            [record("__fd_database/a/x", b"3"), record("__fd_database/b/y", b"3"), record("__fd_database_by_id/3")],
            "database 3 has two owners: __fd_database/a/x and __fd_database/b/y",
        ),
    ],
)
def test_what_cannot_be_decided_is_refused(lines: list[Any], problem: str) -> None:
    with pytest.raises(BackupError, match=problem):
        Filtered([HEADER, *lines])


def test_without_a_header_it_is_refused() -> None:
    with pytest.raises(BackupError, match="line 1: the first line of a backup names its data version"):
        Filtered(CATALOG)


def test_the_missing_record_of_another_tenant_is_no_matter() -> None:
    assert Filtered([HEADER, record("__fd_database/b/x", b"3")]).keys == []


def test_values_of_an_archive_become_numbers() -> None:
    found = Filtered([HEADER, record("__fd_users/a/u", "Zv8=", archived=True)])
    assert found.lines[1] == record("__fd_users/a/u", b"f\xff")


def test_fixed_fields_are_passed_over() -> None:
    catalog = Catalog()
    catalog.learn("__fd_db_id_list/a/x", b"\x15\x01\x02\x03\x04\x19" + bytes(8) + b"\x08\x2a")
    assert catalog.owner("__fd_database_by_id/42") == "a"
