"""The rules of the two commands that set what writes the cluster refuses; `write_limits.py` has what they mean then.

Each changes one row inside the entry's open transaction and gives the effects a new `Registry`. Runs on the event loop.
"""

from __future__ import annotations

from dataclasses import replace

from metasrv.model import commands as c
from metasrv.model.errors import TooLargeError
from metasrv.model.limits import READ_ONLY_REASON_CHARACTERS_MAX
from metasrv.model.types import NO_LIMITS, WriteLimits
from metasrv.state.effects import EntryEffects
from metasrv.state.format import META_LIMITS, limits_out
from metasrv.state.validate import validate_key, validate_numbers


def validate_set_read_only(command: c.SetReadOnly) -> None:
    reason = command.read_only or ""
    if len(reason) > READ_ONLY_REASON_CHARACTERS_MAX:
        raise TooLargeError("the reason in characters", len(reason), READ_ONLY_REASON_CHARACTERS_MAX)
    validate_key(reason, "the reason")


def apply_set_read_only(effects: EntryEffects, command: c.SetReadOnly) -> c.LimitsReply:
    """Turn it on or off; another reason while it is on leaves the time since when it is."""
    limits = effects.registry.limits
    since_ms = 0
    if command.read_only is not None:
        since_ms = effects.time_ms if limits.read_only is None else limits.read_only_since_ms
    return _store(effects, limits._replace(read_only=command.read_only, read_only_since_ms=since_ms))


def validate_set_quota(command: c.SetQuota) -> None:
    validate_numbers(command.quota_bytes)


def apply_set_quota(effects: EntryEffects, command: c.SetQuota) -> c.LimitsReply:
    """Set the quota; it may be smaller than what is there."""
    return _store(effects, effects.registry.limits._replace(quota_bytes=command.quota_bytes))


def _store(effects: EntryEffects, limits: WriteLimits) -> c.LimitsReply:
    if limits == NO_LIMITS:
        limits = NO_LIMITS  # the same object, which is what applying looks for
        effects.store.execute("DELETE FROM meta WHERE name = ?", (META_LIMITS,))
    else:
        effects.store.set_meta(META_LIMITS, limits_out(limits))
    effects.registry = replace(effects.registry, limits=limits)
    return c.LimitsReply(limits.read_only, limits.quota_bytes)
