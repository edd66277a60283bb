"""What each replicated command means: a row names who validates it and who applies it. Checked at import.

The second of two tables; the first, `model/command_table.py`, gives every command its tag, fields and reply. A command
without a row, or a row without a part, stops the import with a sentence that names both.
"""

from __future__ import annotations

from typing import Any

from metasrv.model import command_table as table
from metasrv.model.commands import Command, ErrorReply, Reply
from metasrv.state.effects import EntryEffects
from metasrv.state.limit_rules import apply_set_quota, apply_set_read_only, validate_set_quota, validate_set_read_only
from metasrv.state.migration_rules import apply_migrate, refusal_while_migrating, validate_migrate
from metasrv.state.registry_rules import (
    apply_add_node,
    apply_remove_node,
    apply_replace_secret,
    apply_set_cluster_secret,
    apply_set_feature,
    validate_add_node,
    validate_remove_node,
    validate_replace_secret,
    validate_set_cluster_secret,
    validate_set_feature,
)
from metasrv.state.rules import Rule, check_rules
from metasrv.state.transaction import (
    apply_branch_transaction,
    apply_transaction,
    apply_upsert,
    validate_branch_transaction,
    validate_transaction,
    validate_upsert,
)

COMMAND_RULES: tuple[Rule[Any, Any], ...] = (
    Rule(table.UPSERT, validate_upsert, apply_upsert),
    Rule(table.TRANSACTION, validate_transaction, apply_transaction),
    Rule(table.BRANCH_TRANSACTION, validate_branch_transaction, apply_branch_transaction),
    Rule(table.ADD_NODE, validate_add_node, apply_add_node),
    Rule(table.REMOVE_NODE, validate_remove_node, apply_remove_node),
    Rule(table.SET_FEATURE, validate_set_feature, apply_set_feature),
    Rule(table.SET_CLUSTER_SECRET, validate_set_cluster_secret, apply_set_cluster_secret),
    Rule(table.REPLACE_SECRET, validate_replace_secret, apply_replace_secret),
    Rule(table.MIGRATE, validate_migrate, apply_migrate),
    Rule(table.SET_READ_ONLY, validate_set_read_only, apply_set_read_only),
    Rule(table.SET_QUOTA, validate_set_quota, apply_set_quota),
)
check_rules("command", table.COMMANDS, COMMAND_RULES, "state/command_rules.py")

_VALIDATE = {rule.request.kind: rule.validate for rule in COMMAND_RULES}
_APPLY = {rule.request.kind: rule.apply for rule in COMMAND_RULES}


def validate_command(command: Command) -> None:
    """Raise TooLargeError or InvalidRequestError for a command that must not be proposed."""
    _VALIDATE[type(command)](command)


def apply_command(effects: EntryEffects, command: Command) -> Reply:
    """Apply one command inside the entry's open transaction. Raises RefusedCommandError for one that is impossible."""
    if effects.registry.is_migrating and (refusal := refusal_while_migrating(effects, command)):
        return ErrorReply(refusal)
    reply: Reply = _APPLY[type(command)](effects, command)
    return reply
