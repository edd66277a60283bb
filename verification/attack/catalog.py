"""Every attack by name: which port it is for, and what the attacker has been given. Knows no cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from verification.attack import admin_attacks as admin
from verification.attack import credential_attacks as credentials
from verification.attack import grpc_attacks as grpc
from verification.attack import tls_attacks as tls
from verification.attack.target import Attack


class Port(StrEnum):
    GRPC = "grpc"
    ADMIN = "admin"
    RAFT = "raft"


class Given(StrEnum):
    """What an attacker has been given."""

    NOTHING = "nothing"
    CLIENT = "client"
    """The token of a user who may read everything, and an admin token of the scope `read`."""
    ENDED = "ended"
    """The token of a user who has been removed."""
    CERTIFICATE = "certificate"
    """A certificate of the cluster's authority, for clients."""


class Listed(NamedTuple):
    """One attack, and how it is made."""

    run: Attack
    port: Port
    given: Given = Given.NOTHING
    own_address: bool = False
    """Whether it comes from another address than the load and the probes: what it takes is an address's share."""
    openssl: bool = False
    """Whether it needs the program openssl."""


_GRPC: dict[str, Attack] = {
    "settings beside calls": grpc.settings_beside_calls,
    "windows of waiting answers": grpc.windows_of_waiting_answers,
    "exports that wait": grpc.exports_that_wait,
    "header references": grpc.header_references,
    "pings": grpc.pings,
    "resets": grpc.resets,
    "bombs": grpc.bombs,
    "bombs that nobody takes": grpc.bombs_that_nobody_takes,
    "metadata of waiting calls": grpc.metadata_of_waiting_calls,
    "refusals that nobody reads": grpc.refusals_that_nobody_reads,
}
_ADMIN: dict[str, Attack] = {
    "idle connections": admin.idle_connections,
    "endless head": admin.endless_head,
    "answers that nobody reads": admin.answers_that_nobody_reads,
    "busy connections": admin.busy_connections,
    "callers that leave": admin.callers_that_leave,
    "head behind an answer": admin.head_behind_an_answer,
    "endless body": admin.endless_body,
    "garbage": admin.garbage,
}
_DEEPER_AS_A_CLIENT = (
    "settings beside calls",
    "windows of waiting answers",
    "exports that wait",
    "bombs",
    "bombs that nobody takes",
    "metadata of waiting calls",
    "answers that nobody reads",
    "busy connections",
    "callers that leave",
    "head behind an answer",
)
"""Where a node does or keeps more for somebody whom it knows."""
_TLS: dict[str, Attack] = {
    "silent callers": tls.silent_callers,
    "half handshakes": tls.half_handshakes,
    "held-back handshakes": tls.held_back_handshakes,
    "broken handshakes": tls.broken_handshakes,
    "handshakes": tls.handshakes,
}

PLAIN_ATTACKS: dict[str, Listed] = {
    **{name: Listed(run, Port.GRPC) for name, run in _GRPC.items()},
    **{name: Listed(run, Port.ADMIN) for name, run in _ADMIN.items()},
}
"""Against a cluster without TLS and credentials."""


def as_a_client(name: str) -> str:
    """What an attack is called when it is made with a client's credentials."""
    return f"{name}, as a client"


SECURED_ATTACKS: dict[str, Listed] = {
    **PLAIN_ATTACKS,
    **{as_a_client(name): PLAIN_ATTACKS[name]._replace(given=Given.CLIENT) for name in _DEEPER_AS_A_CLIENT},
    **{f"{name}: {port}": Listed(run, port, own_address=True) for port in Port for name, run in _TLS.items()},
    "handshakes of a client: raft": Listed(tls.handshakes, Port.RAFT, Given.CERTIFICATE, own_address=True),
    **{
        f"{name}: {port}": Listed(run, port, own_address=True, openssl=True)
        for port in Port
        for name, run in (("renegotiations", tls.renegotiations), ("key updates", tls.key_updates))
    },
    "one-byte records": Listed(tls.one_byte_records, Port.GRPC),
    "wrong passwords": Listed(credentials.wrong_passwords, Port.GRPC, own_address=True),
    "wrong passwords, many users": Listed(credentials.wrong_passwords_of_many_users, Port.GRPC, own_address=True),
    "passwords taken back": Listed(credentials.passwords_taken_back, Port.GRPC, own_address=True),
    "wrong tokens": Listed(credentials.wrong_tokens, Port.GRPC),
    "ended tokens": Listed(credentials.ended_tokens, Port.GRPC, Given.ENDED),
    "wrong admin tokens": Listed(credentials.wrong_admin_tokens, Port.ADMIN),
    "wrong admin tokens, changes": Listed(credentials.wrong_admin_tokens_for_changes, Port.ADMIN),
}
"""Against a cluster with TLS on all ports, where every client and every operator shows who it is."""
EVERY_ATTACK = SECURED_ATTACKS
