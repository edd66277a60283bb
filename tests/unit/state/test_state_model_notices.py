"""The random histories of `test_state_model.py` would have noticed: each planted error of a rule makes one fail.

An error is the rule's own source with one text in place of another, compiled into the function that everybody calls.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from metasrv.model.errors import DataDamagedError
from metasrv.state import expiry, format, limit_rules, operations, transaction, write_limits
from metasrv.state.cached_store import CachedStore
from metasrv.state.effects import EntryEffects
from metasrv.state.format import key_size_bytes
from metasrv.state.machine import StateMachine
from metasrv.state.store import Store
from metasrv.state.watch import WatchHub
from tests.support.state_comparison import run_history
from tests.support.state_histories import Drawn

HISTORIES_MAX = 6
"""As many as the test runs of the kind that is drawn from a seed; nearly all of these errors show in the first two."""

ERRORS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "an exact match takes an older record": (transaction.apply_upsert, "seq != wanted", "seq > wanted"),
    "an exact match takes a newer record": (transaction.apply_upsert, "seq != wanted", "seq < wanted"),
    "at least this sequence number is more than it": (transaction.apply_upsert, "seq < wanted", "seq <= wanted"),
    "a refused upsert answers as if it deleted": (transaction.apply_upsert, "(prev, prev)", "(prev, None)"),
    "a re-stamp empties the value": (transaction.apply_upsert, "prev.data, prev", 'b"", prev'),
    "a re-stamp keeps no time to live": (
        transaction.apply_upsert,
        "prev.data, prev, command.expire_at, command.ttl_ms",
        "prev.data, prev, command.expire_at",
    ),
    "branches are numbered from one": (transaction.apply_transaction, "operation:{position}", "operation:{position + 1}"),
    "the first condition alone decides": (
        transaction.apply_transaction,
        "in command.conditions:",
        "in command.conditions[:1]:",
    ),
    "a failed transaction runs the other side": (transaction.apply_transaction, "command.else_then", "command.if_then"),
    "OR of nothing is false": (transaction._holds, "return True", "return expression.combine == c.Combine.AND"),
    "AND is OR": (transaction._holds, "== c.Combine.OR", "!= c.Combine.OR"),
    "a tree forgets its inner trees": (transaction._holds, "in expression.expressions:", "in ():"),
    "counting keys of a prefix ends too early": (transaction._condition_holds, "operand + 1", "operand"),
    "an absent value is compared as empty": (
        transaction._condition_holds,
        "record is not None and _compare(record.data,",
        '_compare(b"" if record is None else record.data,',
    ),
    "greater or equal is greater": (transaction._compare, "left >= right", "left > right"),
    "less or equal is less": (transaction._compare, "left <= right", "left < right"),
    "a put ignores its match": (operations._put, "!= match_seq", "is None"),
    "a put forgets when it expires": (operations._put, "expire_at, ttl_ms))", "None, ttl_ms))"),
    "a put forgets its time to live": (operations._put, "expire_at, ttl_ms))", "expire_at, None))"),
    "a delete ignores its match": (operations._delete, "prev.seq != operation.match_seq", "False"),
    "a delete that found nothing says it did": (operations._delete, "False, prev)", "True, prev)"),
    "a counter ignores its match": (operations._fetch_increase, "before_seq != match_seq", "False"),
    "a counter has no floor": (operations._fetch_increase, "max(before, floor)", "before"),
    "a counter adds before the floor": (
        operations._fetch_increase,
        "max(before, floor) + delta",
        "max(before + delta, floor)",
    ),
    "a counter goes below zero": (
        operations._fetch_increase,
        "max(max(before, floor) + delta, 0)",
        "max(before, floor) + delta",
    ),
    "a counter does not saturate": (operations._fetch_increase, ", U64_MAX)", ", U64_MAX + 1)"),
    "a counter says its record's old sequence number": (
        operations._fetch_increase,
        "effects.seq, after",
        "before_seq, after",
    ),
    "any digits are a number": (operations.counter_of, "number if number <= U64_MAX else 0", "number"),
    "a sequential key has the number after": (operations._put_sequential, "counter.before", "counter.after"),
    "a sequential key has a digit fewer": (operations.sequential_name, "021d", "020d"),
    "expired a millisecond early": (EntryEffects.write, "< self.time_ms", "<= self.time_ms"),
    "a record that is born expired keeps the old one": (
        EntryEffects.write,
        "    if prev is not None:",
        "    if False:",
    ),
    "no sequence number for what is born expired": (
        EntryEffects.write,
        "    return None",
        "    self.seq -= 1; return None",
    ),
    "a record says another time": (
        EntryEffects.write,
        "KVMeta(expire_at, self.time_ms)",
        "KVMeta(expire_at, self.time_ms + 1)",
    ),
    "watchers are not told of a new record": (
        EntryEffects.write,
        "if self.watched:",
        "if self.watched and prev is not None:",
    ),
    "watchers are not told of a deletion": (EntryEffects.remove, "if self.watched:", "if False:"),
    "the counter of expiries is not lowered": (
        EntryEffects.remove,
        "is not None and prev.meta.expire_at",
        "is None and prev.meta",
    ),
    "deleting a prefix leaves the key that is the prefix": (
        EntryEffects.remove_prefix,
        "delete_range(prefix, end,",
        'delete_range(prefix + "\\0", end,',
    ),
    "deleting a prefix does not count what had an expiry": (
        EntryEffects.remove_prefix,
        "self.expire_count > 0)",
        "False)",
    ),
    "deleting a prefix is told to nobody": (EntryEffects.remove_prefix, "self.follows(prefix, end)", "False"),
    "deleting a prefix is told in the wrong order": (EntryEffects.remove_prefix, "in records]", "in reversed(records)]"),
    "the sweep is silent": (EntryEffects.sweep, "if self.follows is not None:", "if False:"),
    "nothing is swept": (EntryEffects.sweep, "self.expire_count == 0", "True"),
    "1e11 itself is milliseconds": (expiry.expire_ms_of, "<= MILLISECONDS_ABOVE", "< MILLISECONDS_ABOVE"),
    "seconds are not turned to milliseconds": (expiry.expire_ms_of, "expire_at * 1000", "expire_at"),
    "a given expiry wins over a time to live": (expiry.expire_at_of, "if ttl_ms is None", "if expire_at is not None"),
    "a read hides a record a millisecond early": (expiry.is_expired, "< min(", "<= min("),
    "a list hides a record a millisecond early": (Store.scan, "expire_ms >= ?", "expire_ms > ?"),
    "a list shows what has expired": (Store.scan, "if now_ms is not None:", "if False:"),
    "no key is behind the last code point": (format.prefix_end, '"\\ue000" if last == 0xD7FF else', ""),
    "log time goes back": (StateMachine._apply_commands, "max(entry.time_ms, self._applied.time_ms)", "entry.time_ms"),
    "memory keeps what a prefix deletion took": (CachedStore.delete_range, "self.forget()", "return"),
    "memory keeps what was swept": (CachedStore.delete_expired, "self.forget()", "return removed"),
    "memory keeps nothing of a deletion": (CachedStore.delete, "self._remember(key, None)", "return"),
    "the last event is lost": (WatchHub.publish, "in changes:", "in list(changes)[:-1]:"),
}


LIMIT_ERRORS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "read-only is not checked": (write_limits.refusal_while_read_only, "limits.read_only is None or", "True or"),
    "a branch that is not taken is no write": (
        write_limits._groups,
        "command.if_then, command.else_then",
        "command.if_then",
    ),
    "reading is a write": (write_limits.is_write, "is not c.Get", "is not None"),
    "the quota is not looked at": (write_limits.apply_within_limits, "not limits.quota_bytes or", "True or"),
    "a deletion over the quota is refused": (
        write_limits._apply_within_quota,
        "or size_after <= size_before",
        "and size_after <= size_before",
    ),
    "what fills the quota to the last byte is refused": (
        write_limits._apply_within_quota,
        "size_after <= quota_bytes",
        "size_after < quota_bytes",
    ),
    "a refused write keeps its sequence number": (EntryEffects.restore, "self.seq, self", "_, self"),
    "a refused write is told to watchers": (EntryEffects.restore, "del self.changes[changes:]", "pass"),
    "a refused write stays in memory": (write_limits._apply_within_quota, "store.forget()", "pass"),
    "a refused write stays in the file": (
        write_limits._apply_within_quota,
        'store.execute("ROLLBACK TO command")',
        "pass",
    ),
    "a counter takes no room": (
        write_limits._operation_bound,
        "_key_bound(operation.key) + _COUNTER_SIZE_BYTES_MAX",
        "0",
    ),
    "a long key counts its characters": (key_size_bytes, "len(key.encode())", "len(key)"),
    "a prefix deletion leaves the size": (
        EntryEffects.remove_prefix,
        "self.data_size_bytes -= removed.data_size_bytes",
        "pass",
    ),
    "a sweep leaves the size": (EntryEffects.sweep, "self.data_size_bytes -= removed.data_size_bytes", "pass"),
    "another reason begins read-only anew": (
        limit_rules.apply_set_read_only,
        "effects.time_ms if limits.read_only is None else limits.read_only_since_ms",
        "effects.time_ms",
    ),
}


def planted(rule: Callable[..., Any], text: str, instead: str) -> CodeType:
    source = textwrap.dedent(inspect.getsource(rule))
    assert text in source, f"{rule.__qualname__} no longer says {text!r}: plant this error elsewhere"
    source = source.replace(text, instead)
    if "super()" not in source:
        return code_within(compile(source, inspect.getfile(rule), "exec"))
    source = "def enclosing(__class__):\n" + textwrap.indent(source, "    ")
    return code_within(code_within(compile(source, inspect.getfile(rule), "exec")))


def code_within(outer: CodeType) -> CodeType:
    return next(constant for constant in outer.co_consts if isinstance(constant, CodeType))


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_a_rule_is_noticed(error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rule, text, instead = ERRORS[error]
    monkeypatch.setattr(rule, "__code__", planted(rule, text, instead))
    with pytest.raises((AssertionError, UnicodeEncodeError)):  # noqa: PT012 - whichever of them it is
        for seed in range(HISTORIES_MAX):
            directory = tmp_path / str(seed)
            directory.mkdir()
            run_history(directory, Drawn(seed).history(entries=150), watched=bool(seed % 2))


@pytest.mark.parametrize("error", LIMIT_ERRORS)
def test_an_error_in_a_limit_is_noticed(error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rule, text, instead = LIMIT_ERRORS[error]
    monkeypatch.setattr(rule, "__code__", planted(rule, text, instead))
    with pytest.raises((AssertionError, DataDamagedError)):  # noqa: PT012 - whichever of them it is
        for seed in range(HISTORIES_MAX):
            directory = tmp_path / str(seed)
            directory.mkdir()
            run_history(directory, Drawn(seed).limited_history(entries=150), watched=bool(seed % 2))
