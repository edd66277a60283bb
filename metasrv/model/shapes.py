"""Shapes: how values become msgpack trees and come back. Leaves, sequences, records and tagged records, put together.

Reading checks every leaf and raises TypeError, ValueError or LookupError for anything else, which `codec.py` turns into
CodecError; it never builds an object by name (invariant 7). Shapes are made once, at import; reading and writing run on
the event loop, for every command. Knows no command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Generic, NamedTuple, TypeVar

from metasrv.model.errors import InvariantError
from metasrv.model.wire import byte_string, integer, string, tag_index, unsigned, unsigned_or_none

T = TypeVar("T")
Number = TypeVar("Number", bound=IntEnum)


class Shape(NamedTuple, Generic[T]):
    """One kind of value: `read` takes it out of a tree, `write` makes its tree."""

    read: Callable[[Any], T]
    write: Callable[[Any], Any] | None = None
    """None: msgpack packs the value as it is."""


STRING = Shape(string)
BYTES = Shape(byte_string)
UNSIGNED = Shape(unsigned)
UNSIGNED_OR_NONE = Shape(unsigned_or_none)
INTEGER = Shape(integer)
BOOLEAN = Shape(bool)


def enumeration(kind: type[Number]) -> Shape[Number]:
    """A member of `kind`, as its number."""
    return Shape(kind)


def optional(shape: Shape[T]) -> Shape[T | None]:
    """None, or a value of `shape`."""
    read, write = shape
    return Shape(
        lambda tree: None if tree is None else read(tree),
        None if write is None else lambda value: None if value is None else write(value),
    )


def sequence(shape: Shape[T]) -> Shape[tuple[T, ...]]:
    """An array of any length."""
    read, write = shape
    return Shape(
        lambda tree: tuple(map(read, tree)),
        None if write is None else lambda values: values and [write(value) for value in values],
    )


def record(kind: type[T], /, **fields: Shape[Any]) -> Shape[T]:
    """A named tuple of type `kind`: an array of its fields. Raises InvariantError unless `fields` names all, in order."""
    shapes = _shapes_of(kind, fields)
    nested = any(shape.write is not None for shape in shapes)
    return Shape(_reader(kind, shapes), _writer(shapes, "") if nested else None)


class Row(NamedTuple, Generic[T]):
    """A record that stands where several may: `tag`, the number in front of its fields, tells which one it is."""

    tag: int
    kind: type[T]
    read: Callable[[Any], T]
    """Takes the fields that follow the tag."""
    write: Callable[[Any], tuple[Any, ...]]
    """Gives the tag and the fields."""
    plain: bool
    """Whether msgpack packs every field as it is."""


def row(tag: int, kind: type[T], /, **fields: Shape[Any]) -> Row[T]:
    """As `record`, with its tag."""
    shapes = _shapes_of(kind, fields)
    plain = all(shape.write is None for shape in shapes)
    return Row(tag, kind, _reader(kind, shapes), _writer(shapes, f"{tag}, "), plain)


class Tagged(NamedTuple):
    """One of several records."""

    read: Callable[[Any], Any]
    writers: Mapping[type[Any], Callable[[Any], tuple[Any, ...]]]
    """What writes a record, by its type."""


def tagged(rows: Sequence[Row[Any]]) -> Tagged:
    """A record of any of `rows`. Raises InvariantError unless their tags are 0, 1, 2 and so on."""
    for place, each in enumerate(rows):
        if each.tag != place:
            raise InvariantError(f"{each.kind.__name__} has tag {each.tag} and stands at place {place} of its table")
    reads = [each.read for each in rows]

    def read(tree: Any) -> Any:
        tag, *fields = tree
        return reads[tag_index(tag)](fields)

    return Tagged(read, {each.kind: each.write for each in rows})


def tagged_sequence(rows: Sequence[Row[Any]]) -> Shape[tuple[Any, ...]]:
    """An array of records as `tagged` reads them. Raises InvariantError for a record that is not plain."""
    for each in rows:
        if not each.plain:
            raise InvariantError(f"{each.kind.__name__} has a field that is not packed as it is; no sequence can hold it")
    read = tagged(rows).read
    tag_of = {each.kind: each.tag for each in rows}
    return Shape(
        lambda tree: tuple(map(read, tree)),
        # Most transactions have empty groups; they are packed as they are.
        lambda values: values and [(tag_of[type(value)], *value) for value in values],
    )


# ----------------------------------------------------------------------------- compiled conversions


def _shapes_of(kind: type[Any], fields: Mapping[str, Shape[Any]]) -> list[Shape[Any]]:
    names: tuple[str, ...] = kind._fields
    if tuple(fields) != names:
        raise InvariantError(f"the fields of {kind.__name__} are {names}; shapes are declared for {tuple(fields)}")
    return list(fields.values())


def _reader(kind: type[Any], shapes: Sequence[Shape[Any]]) -> Callable[[Any], Any]:
    # Every field is there, so the tuple is made directly, in half the time of calling the class.
    values = "".join(f"read{place}(field{place}), " for place in range(len(shapes)))
    reads = {f"read{place}": shape.read for place, shape in enumerate(shapes)}
    return _compiled(len(shapes), f"new(kind, ({values}))", {"new": tuple.__new__, "kind": kind, **reads})


def _writer(shapes: Sequence[Shape[Any]], prefix: str) -> Callable[[Any], tuple[Any, ...]]:
    values = "".join(
        f"field{place}, " if shape.write is None else f"write{place}(field{place}), "
        for place, shape in enumerate(shapes)
    )
    return _compiled(
        len(shapes), f"({prefix}{values})", {f"write{place}": each.write for place, each in enumerate(shapes)}
    )


def _compiled(count: int, result: str, names: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A function that takes `count` fields apart and returns `result`, an expression of them and of `names`.

    Compiled, as `namedtuple` compiles what it makes, because a loop over the fields takes up to half as long again.
    """
    fields = "".join(f"field{place}, " for place in range(count))
    scope = dict(names)
    exec(f"def convert(value):\n    ({fields}) = value\n    return {result}\n", scope)  # noqa: S102 - words and numbers of this module
    convert: Callable[[Any], Any] = scope["convert"]
    return convert
