"""Sequence numbers, upserts, time and expiry: docs/contract/grpc.md sections d.1 to d.4 as a table."""

from __future__ import annotations

from metasrv.model import commands as c
from tests.support.rules import (
    ANY,
    FAR_MS,
    FAR_SECONDS,
    FLUSH_END,
    PAST_MS,
    PAST_SECONDS,
    U64_MAX,
    At,
    Does,
    Event,
    FromNow,
    Gets,
    Holds,
    Lists,
    Rule,
    Waits,
    Watches,
    puts,
    record,
    runs,
    seq_is,
    upserts,
)

EXACT, AT_LEAST = c.MatchKind.EXACT, c.MatchKind.GREATER_EQUAL
DELETE, AS_IS = c.Operation.DELETE, c.Operation.AS_IS

NUMBERS = (
    Rule(
        "every write takes the next number, the same value too",
        (
            runs(puts("a", 1)),
            runs(puts("a", 2, prev=record(1))),
            upserts("a", (record(2), record(3))),
            runs(puts("a", 4, prev=record(3)), puts("b", 5)),
        ),
        takes=5,
    ),
    Rule(
        "deletes take none, and a new record gets a fresh number",
        (
            runs(puts("a", 1)),
            runs((c.Delete("a"), c.DeleteResponse("a", True, record(1)))),
            runs((c.Delete("a"), c.DeleteResponse("a", False, None))),
            upserts("a", (None, None), DELETE),
            runs((c.DeleteByPrefix(""), c.DeleteByPrefixResponse("", 0))),
            runs(puts("a", 2)),
        ),
        takes=2,
    ),
    Rule(
        "deletes of several kinds in one transaction take none",
        (
            runs(puts("a", 1)),
            runs(
                (c.Delete("a"), c.DeleteResponse("a", True, record(1))),
                (c.Delete("absent"), c.DeleteResponse("absent", False, None)),
                (c.DeleteByPrefix(""), c.DeleteByPrefixResponse("", 0)),
                (c.Put("a", b"x", match_seq=At(9)), c.PutResponse("a", None, None)),
            ),
            runs(puts("a", 2)),
        ),
        takes=2,
    ),
    Rule(
        "failed conditions take none",
        (
            runs(puts("a", 1)),
            upserts("a", (record(1), record(1)), match=c.MatchSeq(EXACT, At(10)), value=b"x"),
            Does(c.Transaction((), (seq_is("a", 0),), (c.Put("a", b"x"),), ()), c.TransactionReply(False, (), "else")),
            runs((c.Put("a", b"x", match_seq=At(10)), c.PutResponse("a", record(1), record(1)))),
            runs((c.FetchIncrease("a", 1, At(10)), c.FetchIncreaseResponse("a", At(1), 0, At(1), 0))),
        ),
        takes=1,
    ),
    Rule(
        "a re-stamp takes one only over a record, and keeps its value",
        (
            upserts("a", (None, None), AS_IS),
            runs((c.Put("a", b"kept", FAR_MS), c.PutResponse("a", None, record(1, b"kept", FAR_MS)))),
            Waits(1),
            upserts("a", (record(1, b"kept", FAR_MS), record(2, b"kept")), AS_IS),
            upserts("a", (record(2, b"kept"), record(3, b"kept", FAR_MS)), AS_IS, expire_at=FAR_MS),
        ),
        takes=3,
    ),
    Rule(
        "an expired value takes one and is gone",
        (upserts("a", (None, None), expire_at=PAST_MS), Gets(("a",), (None,)), Holds(())),
        takes=1,
    ),
    Rule(
        "a value that expired a millisecond ago takes one and is gone",
        (runs((c.Put("a", b"v", FromNow(-1)), c.PutResponse("a", None, None))), Holds(())),
        takes=1,
        exact=True,
    ),
    Rule(
        "a sequential put takes two, the counter first",
        (
            runs(
                (
                    c.PutSequential("q/", "counter", b"v"),
                    c.PutResponse("q/000_000_000_000_000_000_000", None, record(2)),
                )
            ),
            Gets(("counter",), (record(1, b"1"),)),
        ),
        takes=2,
    ),
    Rule(
        "an increase takes one unless its number does not match",
        (
            runs((c.FetchIncrease("n", 1), c.FetchIncreaseResponse("n", 0, 0, At(1), 1))),
            runs((c.FetchIncrease("n", 1, At(9)), c.FetchIncreaseResponse("n", At(1), 1, At(1), 1))),
            runs((c.FetchIncrease("n", 1, At(1)), c.FetchIncreaseResponse("n", At(1), 1, At(2), 2))),
        ),
        takes=2,
    ),
    Rule(
        "an absent key has number zero everywhere",
        (
            Does(
                c.Transaction((), (seq_is("a", 0),), (c.FetchIncrease("a", 0),), ()),
                c.TransactionReply(True, (c.FetchIncreaseResponse("a", 0, 0, At(1), 0),), "then"),
            ),
            runs((c.Put("b", b"v", match_seq=0), c.PutResponse("b", None, record(2)))),
            upserts("c", (None, record(3)), match=c.MatchSeq(EXACT, 0)),
            upserts("d", (None, record(4)), match=c.MatchSeq(AT_LEAST, 0)),
            upserts("e", (None, None), match=c.MatchSeq(AT_LEAST, 1)),
            upserts("e", (None, None), DELETE),
        ),
        takes=4,
    ),
)


def _match(name: str, match: c.MatchSeq, met: bool) -> Rule:
    """An upsert over a record with number one, and a deletion of what is then there."""
    present = record(2, b"new") if met else record(1, b"old")
    return Rule(
        f"an upsert over a record, {name}",
        (
            runs(puts("a", 1, b"old")),
            upserts("a", (record(1, b"old"), present), match=match, value=b"new"),
            Gets(("a",), (present,)),
            upserts("a", (present, None), DELETE, match=c.MatchSeq(EXACT, present.seq)),
            Lists("", ()),
        ),
        takes=2 if met else 1,
    )


MATCHES = (
    _match("any number", ANY, met=True),
    _match("its number", c.MatchSeq(EXACT, At(1)), met=True),
    _match("zero", c.MatchSeq(EXACT, 0), met=False),
    _match("a smaller number", c.MatchSeq(EXACT, At(0)), met=False),
    _match("a larger number", c.MatchSeq(EXACT, At(2)), met=False),
    _match("at least zero", c.MatchSeq(AT_LEAST, 0), met=True),
    _match("at least a smaller number", c.MatchSeq(AT_LEAST, At(0)), met=True),
    _match("at least its number", c.MatchSeq(AT_LEAST, At(1)), met=True),
    _match("at least a larger number", c.MatchSeq(AT_LEAST, At(2)), met=False),
    _match("at least the largest number", c.MatchSeq(AT_LEAST, U64_MAX), met=False),
)

TIME = (
    Rule(
        "a write has the log time and replaces all that was said of the record",
        (
            runs((c.Put("a", b"v", ttl_ms=3_600_000), c.PutResponse("a", None, record(1, ttl_ms=3_600_000)))),
            Holds(("a",)),
            Waits(7),
            runs(puts("a", 2, prev=record(1, ttl_ms=3_600_000))),
            upserts("a", (record(2), record(3, expire_at=FAR_MS)), expire_at=FAR_MS),
            upserts("a", (record(3, expire_at=FAR_MS), record(4)), AS_IS),
            Holds(("a",)),
        ),
    ),
    Rule("time is one for a command", (runs(puts("a", 1), puts("b", 2)),)),
    Rule(
        "log time never goes back",
        (runs(puts("a", 1)), Waits(-1000), runs(puts("b", 2)), Gets(("a", "b"), (record(1), record(2)))),
        exact=True,
    ),
)


def _absolute(expire_at: int, alive: bool) -> Rule:
    name = f"an absolute expiry of {expire_at} is {'alive and stored as given' if alive else 'over'}"
    first, second = (record(number, expire_at=expire_at) if alive else None for number in (1, 2))
    return Rule(
        name,
        (
            runs((c.Put("a", b"v", expire_at), c.PutResponse("a", None, first))),
            Gets(("a",), (first,)),
            upserts("a", (first, second), expire_at=expire_at),
            Gets(("a",), (second,)),
        ),
        takes=2,
    )


EXPIRY = (
    _absolute(0, alive=False),
    _absolute(1, alive=False),
    _absolute(PAST_SECONDS, alive=False),
    _absolute(FAR_SECONDS, alive=True),
    _absolute(100_000_000_000, alive=True),  # the last number that is seconds, the year 5138
    _absolute(100_000_000_001, alive=False),  # the first that is milliseconds, 1973
    _absolute(PAST_MS, alive=False),
    _absolute(FAR_MS, alive=True),
    _absolute(2**63 - 1, alive=True),
    _absolute(2**63, alive=True),
    _absolute(U64_MAX, alive=True),
    Rule(
        "a time to live wins over the absolute time",
        (
            runs((c.Put("a", b"v", PAST_MS, 10_000), c.PutResponse("a", None, record(1, ttl_ms=10_000)))),
            runs((c.Put("a", b"v", 5, 1000), c.PutResponse("a", record(1, ttl_ms=10_000), record(2, ttl_ms=1000)))),
            upserts("a", (record(2, ttl_ms=1000), record(3, ttl_ms=20_000)), expire_at=PAST_MS, ttl_ms=20_000),
            runs(
                (
                    c.PutSequential("a", "n", b"v", PAST_MS, 30_000),
                    c.PutResponse("a000_000_000_000_000_000_000", None, record(5, ttl_ms=30_000)),
                )
            ),
        ),
    ),
    Rule(
        "a time to live past the largest number is cut",
        (runs((c.Put("a", b"v", None, U64_MAX), c.PutResponse("a", None, record(1, expire_at=U64_MAX)))),),
    ),
    Rule(
        "a time to live of zero expires with the next millisecond",
        (
            runs((c.Put("a", b"v", None, 0), c.PutResponse("a", None, record(1, ttl_ms=0)))),
            Waits(5),
            Gets(("a",), (None,)),
        ),
    ),
    Rule(
        "equal is alive, and a read has swept what it does not show",
        (
            runs((c.Put("a", b"v", None, 10), c.PutResponse("a", None, record(1, ttl_ms=10)))),
            Waits(10),
            Gets(("a", "a"), (record(1, ttl_ms=10),) * 2),
            Lists("", (("a", record(1, ttl_ms=10)),)),
            Waits(1),
            Gets(("a", "a"), (None, None)),
            Lists("", ()),
            Lists("", (), limit=5),
            Holds(()),
            Waits(60_000),
            Gets(("a", "a"), (None, None)),
            Holds(()),
        ),
        exact=True,
    ),
    Rule(
        "every command sweeps first, and a transaction does not look at the clock",
        (
            runs((c.Put("a", b"v", None, 10), c.PutResponse("a", None, record(1, ttl_ms=10)))),
            Waits(10),
            runs((c.Get("a"), c.GetResponse("a", record(1, ttl_ms=10)))),
            Waits(1),
            runs((c.Get("a"), c.GetResponse("a", None))),
            Holds(()),
        ),
        exact=True,
    ),
    Rule(
        "an insert in the past answers what was there and removes it",
        (
            Watches("", "~", (Event("a", None, record(1)), Event("a", record(1), None))),
            runs(puts("a", 1)),
            runs((c.Put("a", b"2", PAST_MS), c.PutResponse("a", record(1), None))),
            Gets(("a",), (None,)),
            runs((c.Put("a", b"3", PAST_SECONDS), c.PutResponse("a", None, None))),
            Lists("", ()),
        ),
        takes=3,
    ),
    Rule(
        "a sweep is in order of expiry and number, before everything else that follows",
        (
            Watches(
                "",
                "~",
                (
                    Event("b", None, record(1, ttl_ms=120)),
                    Event("c", None, record(2, ttl_ms=90)),
                    Event("a", None, record(3, ttl_ms=120)),
                    Event("c", record(2, ttl_ms=90), None),
                    Event("b", record(1, ttl_ms=120), None),
                    Event("a", record(3, ttl_ms=120), None),
                    Event("d", None, record(4)),
                ),
            ),
            runs(
                (c.Put("b", b"v", None, 120), c.PutResponse("b", None, record(1, ttl_ms=120))),
                (c.Put("c", b"v", None, 90), c.PutResponse("c", None, record(2, ttl_ms=90))),
                (c.Put("a", b"v", None, 120), c.PutResponse("a", None, record(3, ttl_ms=120))),
            ),
            Lists(
                "",
                (
                    ("a", record(3, ttl_ms=120)),
                    ("b", record(1, ttl_ms=120)),
                    ("c", record(2, ttl_ms=90)),
                ),
            ),
            Waits(160),
            Lists("", ()),
            Gets(("a", "b", "c"), (None, None, None)),
            Watches(
                "",
                "~",
                (
                    FLUSH_END,
                    Event("d", None, record(4)),
                ),
                flush=True,
            ),
            Does(
                c.Transaction(
                    (),
                    (c.Condition("", c.Target.KEYS_WITH_PREFIX, 0, c.Comparison.EQ),),
                    (c.Put("d", b"v"), c.Get("a")),
                    (),
                ),
                c.TransactionReply(True, (c.PutResponse("d", None, record(4)), c.GetResponse("a", None)), "then"),
            ),
        ),
    ),
    Rule(
        "a cluster sweeps without a command of anybody",
        (
            Watches("a", None, (Event("a", None, record(1, ttl_ms=50)), Event("a", record(1, ttl_ms=50), None))),
            runs((c.Put("a", b"v", None, 50), c.PutResponse("a", None, record(1, ttl_ms=50)))),
            Waits(300),
            Holds(()),
            runs(puts("b", 2)),
            Holds(("b",)),
        ),
    ),
)

RULES = (*NUMBERS, *MATCHES, *TIME, *EXPIRY)
