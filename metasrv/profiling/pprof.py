"""Profiles as `go tool pprof` reads them: the protobuf message `perftools.profiles.Profile`, written by hand.

The message is small and frozen (github.com/google/pprof, proto/profile.proto), so a schema compiler and its runtime
would cost more than these few functions. The body is not gzipped, as the admin API promises. Pure; runs anywhere.

Fields written: Profile 1 sample_type, 2 sample, 4 location, 5 function, 6 string_table, 9 time_nanos,
10 duration_nanos, 11 period_type, 12 period, 13 comment, 14 default_sample_type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from metasrv.model.varints import varint
from metasrv.profiling.stacks import Frame, StackSample


class ValueType(NamedTuple):
    """What a value counts: `("cpu", "nanoseconds")`."""

    type: str
    unit: str


class ProfileHeader(NamedTuple):
    """Everything about a profile but its samples."""

    value_types: tuple[ValueType, ...]
    period_type: ValueType
    period: int
    """Between two samples, in the unit of `period_type`."""
    time_ns: int
    """Start, since the Unix epoch."""
    duration_ns: int
    default_type: str
    """Name of the value type shown first."""
    comment: str = ""
    """A sentence that `go tool pprof -comments` shows."""


def encode_profile(header: ProfileHeader, samples: Iterable[StackSample]) -> bytes:
    """The message's bytes; every sample must carry one value for each value type."""
    tables = _Tables()
    parts = [_message(1, _value_type(tables, value_type)) for value_type in header.value_types]
    for sample in samples:
        if len(sample.values) != len(header.value_types):
            raise ValueError(f"a sample has {len(sample.values)} values for {len(header.value_types)} value types")
        # pprof lists the leaf first.
        locations = [tables.location_id(frame) for frame in reversed(sample.frames)]
        parts.append(_message(2, _packed(1, locations) + _packed(2, sample.values)))
    period_type = _message(11, _value_type(tables, header.period_type))
    default_type = _integer(14, tables.string_id(header.default_type))
    comment = _integer(13, tables.string_id(header.comment)) if header.comment else b""
    parts += [_message(4, location) for location in tables.locations()]
    parts += [_message(5, function) for function in tables.functions()]
    parts += [_message(6, text.encode()) for text in tables.strings]
    parts += [_integer(9, header.time_ns), _integer(10, header.duration_ns)]
    parts += [period_type, _integer(12, header.period), comment, default_type]
    return b"".join(parts)


class _Tables:
    """The tables of strings, functions and locations; ids count from 1, the string at 0 is empty."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[Frame, int] = {}

    def string_id(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def location_id(self, frame: Frame) -> int:
        found = self._locations.get(frame)
        if found is None:
            found = self._locations[frame] = len(self._locations) + 1
            self._functions.setdefault((frame.function, frame.file), len(self._functions) + 1)
            for text in (_name(frame.function, frame.file), frame.function, frame.file):
                self.string_id(text)
        return found

    def locations(self) -> Iterable[bytes]:
        for frame, location_id in self._locations.items():
            function_id = self._functions[frame.function, frame.file]
            line = _integer(1, function_id) + _integer(2, frame.line)
            yield _integer(1, location_id) + _message(4, line)

    def functions(self) -> Iterable[bytes]:
        for (function, file), function_id in self._functions.items():
            name = self.string_id(_name(function, file))
            own_name = self.string_id(function)
            yield _integer(1, function_id) + _integer(2, name) + _integer(3, own_name) + _integer(4, self.string_id(file))


def _name(function: str, file: str) -> str:
    """What pprof shows, and adds up by: functions of different modules often have the same name.

    It differs from the function's own name, which goes along as the linker's (field 3), because pprof shortens names that
    have parentheses or angle brackets where the two are the same.
    """
    return str(Frame(function, file))


# ----------------------------------------------------------------------------- wire format


def _value_type(tables: _Tables, value_type: ValueType) -> bytes:
    return _integer(1, tables.string_id(value_type.type)) + _integer(2, tables.string_id(value_type.unit))


def _varint(value: int) -> bytes:
    return varint(value & 2**64 - 1)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _packed(field: int, values: Sequence[int]) -> bytes:
    return _message(field, b"".join(map(_varint, values)))
