"""All rules of docs/contract/grpc.md section d."""

from __future__ import annotations

from tests.support import rules_of_reads, rules_of_transactions, rules_of_writes

RULES = (*rules_of_writes.RULES, *rules_of_transactions.RULES, *rules_of_reads.RULES)
NAMES = [rule.name for rule in RULES]
assert len(set(NAMES)) == len(NAMES), "each rule has a name of its own"
