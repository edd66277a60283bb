"""Defects of addresses: nodes that moved and are not answered, not found, or not written down."""

from __future__ import annotations

from metasrv.raft.address_changes import AddressChanges
from metasrv.raft.member_search import MemberSearch
from metasrv.raft.peer_set import Peers
from verification.mutants.patching import Mutant, Replacement


def _announced_address_ignored() -> list[Replacement]:
    return [(Peers, "_note_place", lambda _self, _remote: None)]


def _hints_ignored() -> list[Replacement]:
    async def ask(_self: MemberSearch) -> None: ...

    return [(MemberSearch, "ask", ask)]


def _membership_keeps_addresses() -> list[Replacement]:
    return [(AddressChanges, "consider", lambda _self: None)]


ADDRESS_MUTANTS = (
    Mutant(
        "announced address ignored",
        "a member that moved is dialled where the log has it, whatever it says (R15)",
        _announced_address_ignored,
        ("one node moves", "two nodes move"),
    ),
    Mutant(
        "hints ignored",
        "a node with data asks nobody where its members are (R15)",
        _hints_ignored,
        ("all nodes move",),
    ),
    Mutant(
        "membership keeps old addresses",
        "a member's new address is registered, and the membership keeps the old one (R15)",
        _membership_keeps_addresses,
        ("one node moves",),
    ),
)
