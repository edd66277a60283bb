"""Who may speak on a peer connection: the shared secret, its proofs and session keys, and the TLS contexts.

Proofs are HMAC-SHA256 over everything that both sides have sent, so none can be replayed, reflected or moved to another
connection; the secret itself is never sent. Knows nothing of frames or sockets. Runs anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from metasrv.model.errors import AuthenticationError, ConfigError
from metasrv.process.certificates import Certificate, no_pass_phrase
from metasrv.process.tls import restrict
from metasrv.raft.peers.peer_certificates import check_node, check_operator

NONCE_SIZE_BYTES = 32
PROOF_SIZE_BYTES = 32
"""An HMAC-SHA256."""

_DIALLER_PROOF = b"metasrv peer 1: the dialler holds the secret"
_ACCEPTOR_PROOF = b"metasrv peer 1: the acceptor holds the secret"
_DIALLER_KEY = b"metasrv peer 1: frames of the dialler"
_ACCEPTOR_KEY = b"metasrv peer 1: frames of the acceptor"


class RaftSecurityConfig(Protocol):
    """The options of `[raft_config]` that this module reads; secrets as text, or wrapped in pydantic's SecretStr."""

    @property
    def raft_secret(self) -> Any: ...

    @property
    def raft_accepted_secrets(self) -> Sequence[Any]: ...

    @property
    def raft_secret_strict(self) -> bool: ...

    @property
    def raft_tls_ca(self) -> Any: ...

    @property
    def raft_tls_cert(self) -> Any: ...

    @property
    def raft_tls_key(self) -> Any: ...

    @property
    def raft_tls_allowed_names(self) -> Sequence[str]: ...

    @property
    def raft_tls_operators(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class PeerSecurity:
    """What this node proves and what it demands.

    Two nodes talk when they hold a secret in common, whichever of them has it as `secret` and whichever among
    `accepted`; so a change of secrets has no order in which a node could be locked out. `secret` decides what a node
    demands: with `strict` (which has no effect without one) every peer has to prove a secret. With `strict` off, a peer
    that proves nothing is let in and logged; a wrong proof is always refused. With TLS contexts every connection is
    mutually authenticated by certificate as well, and `allowed_names` and `operators` say whose certificates count.
    """

    secret: bytes | None = field(default=None, repr=False)
    accepted: tuple[bytes, ...] = field(default=(), repr=False)
    strict: bool = True
    server_context: ssl.SSLContext | None = None
    client_context: ssl.SSLContext | None = None
    allowed_names: tuple[str, ...] = ()
    """Names of which a node's certificate must have one; without them it must have the host that the node advertises."""
    operators: tuple[str, ...] = ()
    """Common names of the certificates whose holders may ask for a leave."""

    @classmethod
    def from_config(cls, raft_config: RaftSecurityConfig) -> PeerSecurity:
        """Read the configured secrets and load the certificate files. Raises ConfigError with every mistake found."""
        secret = _secret_bytes(raft_config.raft_secret)
        accepted = tuple(value for value in map(_secret_bytes, raft_config.raft_accepted_secrets) if value is not None)
        strict = bool(raft_config.raft_secret_strict)
        problems: list[str] = []
        files = {name: str(getattr(raft_config, name) or "") for name in ("raft_tls_ca", "raft_tls_cert", "raft_tls_key")}
        missing = [name for name, path in files.items() if not path]
        server_context = client_context = None
        if not missing:
            try:
                server_context, client_context = tls_contexts(*files.values())
            except ConfigError as error:
                problems += error.problems
        elif len(missing) < len(files):
            problems.append(f"TLS between peers needs all of {', '.join(files)}; missing: {', '.join(missing)}")
        if problems:
            raise ConfigError(problems)
        names, operators = tuple(raft_config.raft_tls_allowed_names), tuple(raft_config.raft_tls_operators)
        return cls(secret, accepted, strict, server_context, client_context, names, operators)

    @property
    def verifies_proof(self) -> bool:
        """Whether a dialler's proof means anything here."""
        return bool(self.held)

    @property
    def held(self) -> tuple[bytes, ...]:
        """Every secret of this node once, its own first."""
        own = () if self.secret is None else (self.secret,)
        return tuple(dict.fromkeys(own + self.accepted))

    @property
    def demands_proof(self) -> bool:
        return self.strict and self.secret is not None

    def check_caller(self, certificate: Certificate | None, host: str | None, proved: bool) -> None:
        """Raise AuthenticationError unless a caller's certificate lets it in.

        `host` is what a node advertises, None for a caller that is no node; `proved` whether it proved a secret.
        """
        if self.server_context is None:
            return
        if certificate is None:
            raise AuthenticationError("the caller has no certificate")
        if host is not None:
            check_node(certificate, host, self.allowed_names)
        elif not proved:
            check_operator(certificate, self.operators)

    def check_answerer(self, certificate: Certificate | None, host: str) -> None:
        """Raise AuthenticationError unless whoever answers at `host`, the host that was dialled, has its certificate."""
        if self.client_context is None:
            return
        if certificate is None:
            raise AuthenticationError("it has no certificate")
        check_node(certificate, host, self.allowed_names)

    def prove(self, transcript: bytes) -> bytes:
        """A dialler's proofs of all the secrets that it holds, one after the other."""
        return b"".join(dialler_proof(secret, transcript) for secret in self.held)

    def secret_behind(self, proofs: bytes, transcript: bytes) -> bytes | None:
        """The first secret of this node that a dialler proved, or None when the two have none in common."""
        given = [proofs[start : start + PROOF_SIZE_BYTES] for start in range(0, len(proofs), PROOF_SIZE_BYTES)]
        for secret in self.held:
            wanted = dialler_proof(secret, transcript)
            if any(hmac.compare_digest(proof, wanted) for proof in given):
                return secret
        return None

    def secret_confirmed(self, proof: bytes, transcript: bytes) -> bytes | None:
        """The secret with which an acceptor made `proof`, or None when this node does not hold it."""
        matching = [secret for secret in self.held if hmac.compare_digest(proof, acceptor_proof(secret, transcript))]
        return matching[0] if matching else None


@dataclass(frozen=True)
class SessionKeys:
    """One key for each direction of one connection."""

    dialler: bytes = field(repr=False)
    acceptor: bytes = field(repr=False)


def transcript_of(*messages: bytes) -> bytes:
    """A digest of the messages so far; different sequences of messages give different ones."""
    return b"".join(hashlib.sha256(message).digest() for message in messages)


def dialler_proof(secret: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, _DIALLER_PROOF + transcript, "sha256")


def acceptor_proof(secret: bytes, transcript: bytes) -> bytes:
    return hmac.digest(secret, _ACCEPTOR_PROOF + transcript, "sha256")


def session_keys(secret: bytes, transcript: bytes) -> SessionKeys:
    return SessionKeys(
        hmac.digest(secret, _DIALLER_KEY + transcript, "sha256"),
        hmac.digest(secret, _ACCEPTOR_KEY + transcript, "sha256"),
    )


def tls_contexts(ca_path: str, cert_path: str, key_path: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for accepting and for dialling; both demand a certificate signed by the authority in `ca_path`.

    Whose certificate it is they leave to `PeerSecurity`, which knows the names that count. Raises ConfigError.
    """
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context.check_hostname = False
    # A session that is taken up again would be let in by what its certificate was when it began.
    server_context.num_tickets = 0
    server_context.options |= ssl.OP_NO_TICKET
    problems: list[str] = []
    for context in (server_context, client_context):
        restrict(context)
        try:
            context.load_verify_locations(cafile=ca_path)
        except (OSError, ValueError) as error:
            problems.append(f"raft_tls_ca: {ca_path}: {error}")
        try:
            context.load_cert_chain(cert_path, key_path, password=no_pass_phrase)
        except (OSError, ValueError) as error:
            problems.append(f"raft_tls_cert, raft_tls_key: {cert_path}, {key_path}: {error}")
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return server_context, client_context


def _secret_bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    return str(text).encode() or None
