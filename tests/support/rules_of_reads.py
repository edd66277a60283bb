"""Lists, gets and watches: docs/contract/grpc.md sections d.6 and d.7 as a table."""

from __future__ import annotations

from metasrv.model import commands as c
from metasrv.state.watch import WatchFilter
from tests.support.rules import (
    FLUSH_END,
    PAST_MS,
    U64_MAX,
    Does,
    Event,
    Gets,
    Lists,
    Rule,
    Step,
    Watches,
    puts,
    record,
    runs,
    upserts,
)

# ----------------------------------------------------------------------------- lists and gets

NAMES = ("test_key1", "test/key2", "testkey3", "test", "tes", "tesu", "é", "\uffff", "\U00010000", "z")
EDGES = ("", "a", "a\0", "a/", "a/b", "a0", "b", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff")
"""In order."""


def _put_all(keys: tuple[str, ...]) -> Does:
    return runs(*(puts(key, number) for number, key in enumerate(keys, 1)))


def _list(keys: tuple[str, ...], prefix: str, limit: int | None = None) -> Lists:
    """What a list must find after `_put_all(keys)`."""
    found = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
    return Lists(prefix, tuple((key, record(keys.index(key) + 1)) for key in found[:limit]), limit)


FIVE = ("0", "1", "2", "3", "4")
MANY = tuple(map(str, range(3000)))

READS = (
    Rule(
        "lists go in the order of bytes, and prefixes are plain",
        (_put_all(NAMES), *(_list(NAMES, prefix) for prefix in ("", "test", "tes", "nothing"))),
    ),
    Rule(
        "lists and prefixes at the edges of what a character may be",
        (_put_all(tuple(reversed(EDGES))), *(_list(tuple(reversed(EDGES)), prefix) for prefix in (*EDGES, "x"))),
    ),
    Rule(
        "a list has as many records as asked for",
        (_put_all(FIVE), *(_list(FIVE, "", limit) for limit in (None, 0, 1, 2, 5, 6, U64_MAX)), _list(EDGES, "x", 2)),
    ),
    Rule(
        "a list with a prefix has as many records as asked for",
        (_put_all(EDGES), _list(EDGES, "", 0), _list(EDGES, "a", 2), _list(EDGES, "", U64_MAX)),
    ),
    Rule(
        "gets answer each requested key in order, duplicates too",
        (
            runs(puts("a", 1)),
            Gets(("b", "a", "c", "a"), (None, record(1), None, record(1))),
            Gets(("x", "a", "a", ""), (None, record(1), record(1), None)),
            Gets((), ()),
        ),
    ),
    Rule("gets of very many keys", (runs(puts("7", 1)), Gets(MANY, (*[None] * 7, record(1), *[None] * 2992)))),
)

# ----------------------------------------------------------------------------- watches

RANGED: tuple[Step, ...] = (
    Watches("b", None, (Event("b", None, record(2)), Event("b", record(2), record(7)))),
    Watches(
        "b",
        "d",
        (
            Event("b", None, record(2)),
            Event("b\0", None, record(3)),
            Event("b0", None, record(4)),
            Event("c", None, record(5)),
            Event("b", record(2), record(7)),
        ),
    ),
    *(runs(puts(key, number)) for number, key in enumerate(("a", "b", "b\0", "b0", "c", "d"), 1)),
    runs(puts("b", 7, prev=record(2))),
)

CHANGES = (
    Event("a", None, record(1, b"1")),
    Event("a", record(1, b"1"), record(2, b"2")),
    Event("a", record(2, b"2"), None),
    Event("b", None, record(3)),
    Event("b", record(3), None),
)


def _filtered(filter: WatchFilter, *seen: int) -> Watches:
    return Watches("", "~", tuple(CHANGES[position] for position in seen), filter)


FLUSHED = tuple(
    Event(key, None, record(number, key.encode()), flushed=True) for key, number in (("a", 2), ("b", 3), ("c", 1))
)
PUT_D, DELETED_D = Event("d", None, record(4)), Event("d", record(4), None)

WATCHES = (
    Rule("a watch is of one key or a range", RANGED),
    Rule(
        "a filter chooses updates or deletes",
        (
            _filtered(WatchFilter.ALL, 0, 1, 2, 3, 4),
            _filtered(WatchFilter.UPDATE, 0, 1, 3),
            _filtered(WatchFilter.DELETE, 2, 4),
            runs(puts("a", 1, b"1")),
            runs(puts("a", 2, b"2", prev=record(1, b"1"))),
            runs((c.Delete("a"), c.DeleteResponse("a", True, record(2, b"2")))),
            runs(puts("b", 3)),
            runs((c.Delete("b"), c.DeleteResponse("b", True, record(3)))),
        ),
    ),
    Rule(
        "a transaction is consecutive events in the order of its operations",
        (
            Watches(
                "",
                "~",
                (
                    Event("b", None, record(1)),
                    Event("a", None, record(2)),
                    Event("b", record(1), None),
                    Event("n", None, record(3, b"1")),
                ),
            ),
            runs(
                puts("b", 1),
                puts("a", 2),
                (c.Delete("b"), c.DeleteResponse("b", True, record(1))),
                (c.FetchIncrease("n", 1), c.FetchIncreaseResponse("n", 0, 0, record(3).seq, 1)),
            ),
        ),
    ),
    Rule(
        "what changes nothing is silent",
        (
            Watches("", "~", (Event("end", None, record(2)),)),
            runs((c.Delete("absent"), c.DeleteResponse("absent", False, None))),
            upserts("absent", (None, None), c.Operation.AS_IS),
            runs((c.Put("absent", b"v", match_seq=5), c.PutResponse("absent", None, None))),
            runs((c.Put("absent", b"v", PAST_MS), c.PutResponse("absent", None, None))),
            runs(puts("end", 2)),
        ),
        takes=2,
    ),
    Rule(
        "an initial flush has everything in key order whatever the filter, then a marker, then changes",
        (
            runs(puts("c", 1, b"c")),
            runs(puts("a", 2, b"a")),
            runs(puts("b", 3, b"b")),
            Watches("", "~", (*FLUSHED, FLUSH_END, PUT_D, DELETED_D), flush=True),
            Watches("", "~", (*FLUSHED, FLUSH_END, PUT_D), WatchFilter.UPDATE, flush=True),
            Watches("", "~", (*FLUSHED, FLUSH_END, DELETED_D), WatchFilter.DELETE, flush=True),
            Watches("nothing", None, (FLUSH_END,), flush=True),
            Watches("a", None, (FLUSHED[0], FLUSH_END), flush=True),
            runs(puts("d", 4)),
            runs((c.Delete("d"), c.DeleteResponse("d", True, record(4)))),
        ),
    ),
)

RULES = (*READS, *WATCHES)
