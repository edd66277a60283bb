"""A command without a row, or with half a row, stops the import of the table with a sentence that names it."""

from __future__ import annotations

import runpy
from typing import Any, NamedTuple, get_args

import pytest

from metasrv.model import command_table as table
from metasrv.model import commands as c
from metasrv.model.errors import InvariantError
from metasrv.model.shapes import STRING, UNSIGNED, Row, optional, record, row, sequence, tagged, tagged_sequence
from tests.support.paths import PRODUCT
from tests.support.wire_samples import COMMANDS, OPERATIONS, REPLIES, RESPONSES


class Rename(NamedTuple):
    """A command that somebody is about to add."""

    key: str
    to: str


class Renamed(NamedTuple):
    key: str


@pytest.mark.parametrize(
    ("union", "kind", "what"),
    [
        ("Command", Rename, "command"),
        ("Reply", Renamed, "reply"),
        ("TransactionOperation", Rename, "operation"),
        ("OperationResponse", Renamed, "response"),
    ],
)
def test_a_type_without_a_row_stops_the_import(
    union: str, kind: type[Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c, union, getattr(c, union) | kind)
    with pytest.raises(InvariantError, match=f"{what} {kind.__name__} has no row in model/command_table.py"):
        runpy.run_path(str(PRODUCT / "model/command_table.py"))


def test_a_row_for_what_is_not_a_command_stops_the_import() -> None:
    rows = [command.row for command in table.COMMANDS]
    table.check_table("command", c.Command, rows)
    with pytest.raises(InvariantError, match=r"Rename has a row .* and is no command"):
        table.check_table("command", c.Command, [*rows, row(99, Rename, key=STRING, to=STRING)])
    with pytest.raises(InvariantError, match=f"command {rows[-1].kind.__name__} has more than one row"):
        table.check_table("command", c.Command, [*rows, rows[-1]])


@pytest.mark.parametrize(
    "fields", [{"key": STRING}, {"to": STRING, "key": STRING}, {"key": STRING, "to": STRING, "when": UNSIGNED}]
)
def test_a_row_names_every_field_in_order(fields: dict[str, Any]) -> None:
    for declare in (lambda: row(0, Rename, **fields), lambda: record(Rename, **fields)):
        with pytest.raises(InvariantError, match="the fields of Rename are"):
            declare()


def test_tags_are_places() -> None:
    first, third = row(0, Rename, key=STRING, to=STRING), row(2, Renamed, key=STRING)
    with pytest.raises(InvariantError, match="Renamed has tag 2 and stands at place 1"):
        tagged([first, third])


def test_a_sequence_holds_only_records_whose_fields_are_packed_as_they_are() -> None:
    nested = sequence(optional(tagged_sequence([row(0, Renamed, key=STRING)])))
    with pytest.raises(InvariantError, match="Rename has a field"):
        tagged_sequence([row(0, Rename, key=STRING, to=nested)])


def test_values_of_nested_shapes_come_back() -> None:
    names = tagged_sequence([row(0, Renamed, key=STRING)])
    shape: Row[Rename] = row(0, Rename, key=sequence(optional(names)), to=optional(names))
    value = Rename(((Renamed("a"), Renamed("b")), None), None)  # type: ignore[arg-type]
    assert shape.write(value) == (0, [[(0, "a"), (0, "b")], None], None)
    assert shape.read(shape.write(value)[1:]) == value


def test_every_type_has_a_recorded_sample() -> None:
    assert {type(sample) for sample in COMMANDS.values()} == set(get_args(c.Command))
    assert {type(sample) for sample in REPLIES.values()} == set(get_args(c.Reply))
    assert {type(sample) for sample in OPERATIONS.values()} == set(get_args(c.TransactionOperation))
    assert {type(sample) for sample in RESPONSES} == set(get_args(c.OperationResponse))
