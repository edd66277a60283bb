"""The rules of a migration: which steps are taken, and what other commands may do meanwhile.

Only an empty cluster begins one. A record is stored with the number and the expiry that it has at its source, when that
number is newer than the present one; a deletion names the number of what was deleted, and deletes nothing newer. So
steps may come twice, and their order does not matter for what was never deleted. A run has a number, and a newer run
takes over: what an earlier one sent and what comes late is refused. Runs on the event loop.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, TooLargeError
from metasrv.model.limits import MIGRATED_RECORDS_MAX
from metasrv.model.migration import MIGRATION_NAME, Migration, MigrationStep, migration_among, migration_out
from metasrv.model.types import I64_MAX, KVMeta, SeqV
from metasrv.state.effects import EntryEffects, RefusedCommandError
from metasrv.state.format import INLINE_SIZE_BYTES_MAX, seal
from metasrv.state.validate import validate_key, validate_numbers, validate_value

_WRITES = (c.Upsert, c.Transaction, c.BranchTransaction)

# ----------------------------------------------------------------------------- other commands


def refusal_while_migrating(effects: EntryEffects, command: c.Command) -> str:
    """Why a migration keeps the command from being applied; empty for a command that it does not concern."""
    if not isinstance(command, _WRITES) or command == c.TICK:
        return ""
    migration = migration_among(effects.registry.secrets)
    return (
        f"this cluster takes the records of {_named(migration)} and no other writes until that ends: "
        "with `metactl migrate --cut-over`, or `metactl migrate --abort`"
    )


def _named(migration: Migration | None) -> str:
    return f"cluster {migration.source}" if migration is not None and migration.source else "another cluster"


# ----------------------------------------------------------------------------- the command


def validate_migrate(command: c.Migrate) -> None:
    """Raise for a step that is too large, or has numbers that the store cannot hold."""
    if len(command.records) > MIGRATED_RECORDS_MAX:
        raise TooLargeError("the records of one step", len(command.records), MIGRATED_RECORDS_MAX)
    if command.step is MigrationStep.CLEAR and command.count > MIGRATED_RECORDS_MAX:
        raise TooLargeError("the records to delete in one step", command.count, MIGRATED_RECORDS_MAX)
    validate_key(command.source, "the name of the source")
    for number in (command.run, command.last_seq, command.count):
        _validate_i64(number)
    for record in command.records:
        validate_key(record.key)
        validate_value(record.data or b"")
        validate_numbers(record.expire_at)
        _validate_i64(record.proposed_at_ms)
        _validate_i64(record.seq)
        if not record.seq:
            raise InvalidRequestError("a record has no sequence number")


def _validate_i64(number: int) -> None:
    if not 0 <= number <= I64_MAX:
        raise InvalidRequestError(f"{number} is not a number up to {I64_MAX}")


def apply_migrate(effects: EntryEffects, command: c.Migrate) -> c.MigrationReply:
    """Take the step, or say why not; the reply shows where the migration stands."""
    refused = _begin(effects, command) if command.step is MigrationStep.BEGIN else _step(effects, command)
    migration = migration_among(effects.registry.secrets) or Migration("", 0)
    return c.MigrationReply(refused, migration.source, migration.run, effects.seq, effects.key_count)


def _begin(effects: EntryEffects, command: c.Migrate) -> str:
    present = migration_among(effects.registry.secrets)
    if present is None and effects.key_count:
        return f"only an empty cluster takes the records of another, and this one has {effects.key_count} keys"
    if present is not None and present.source != command.source:
        return f"this cluster already takes the records of {_named(present)}; `metactl migrate --abort` ends that"
    if present is not None and command.run <= present.run:
        return f"run {present.run} leads the migration, and run {command.run} is not newer"
    _mark(effects, Migration(command.source, command.run))
    return ""


def _step(effects: EntryEffects, command: c.Migrate) -> str:
    present = migration_among(effects.registry.secrets)
    if present is None:
        return "no migration is under way"
    if command.run != present.run:
        return f"run {present.run} leads the migration now, not run {command.run}"
    if command.step is MigrationStep.STORE:
        return _store(effects, command)
    if command.step is MigrationStep.CLEAR:
        for key, record in effects.store.scan("", None, None, command.count, None):
            effects.remove(key, record)
        return ""
    wanted = command.count if command.step is MigrationStep.FINISH else 0
    if effects.key_count != wanted:
        return f"this cluster has {effects.key_count} keys, and {wanted} are to be there"
    effects.seq = max(effects.seq, command.last_seq)
    _mark(effects, None)
    effects.sweep()  # what follows in this entry sees no record that has expired
    return ""


def _store(effects: EntryEffects, command: c.Migrate) -> str:
    for key, seq, data, expire_at, proposed_at_ms in command.records:
        prev = effects.store.read(key)
        if data is None:
            if prev is not None and prev.seq <= seq:
                effects.remove(key, prev)
            effects.seq = max(effects.seq, seq)
        elif prev is None or prev.seq < seq:
            if len(data) > INLINE_SIZE_BYTES_MAX and effects.store.has_large_value(seq):
                # Nothing of the command may stay, so it is refused as one that cannot be applied.
                raise RefusedCommandError(f"another record has the sequence number {seq} of {key!r}")
            effects.place(key, SeqV(seq, data, KVMeta(expire_at, proposed_at_ms)), prev)
    effects.seq = max(effects.seq, command.last_seq)
    return ""


def _mark(effects: EntryEffects, migration: Migration | None) -> None:
    secrets = {name: secret for name, secret in effects.registry.secrets.items() if name != MIGRATION_NAME}
    if migration is None:
        effects.store.execute("DELETE FROM secrets WHERE name = ?", (MIGRATION_NAME,))
    else:
        data = migration_out(migration)
        effects.store.execute("INSERT OR REPLACE INTO secrets VALUES(?, ?)", (MIGRATION_NAME, seal(data)))
        secrets[MIGRATION_NAME] = data
    effects.registry = replace(effects.registry, secrets=MappingProxyType(secrets))
