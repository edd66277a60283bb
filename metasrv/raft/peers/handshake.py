"""The first four frames of a peer connection: who is there, and does it hold the shared secret.

    dialler                                acceptor
    HELLO (identity, role, nonce)    ->
                                     <-    CHALLENGE (nonce, whether it holds a secret)
    PROOF (of each secret, or empty) ->
                                     <-    WELCOME (identity, proof over all of it)   or   REFUSAL (a sentence)

The acceptor says nothing about itself before the dialler has proved what is demanded. Nodes talk only when both speak the
same version of the protocol; HELLO and CHALLENGE begin with it, so that the other side can be told. Two pure machines,
payloads in and payloads out: no socket, no clock. Runs on the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from metasrv.model.errors import AuthenticationError, CodecError, FrameError
from metasrv.model.limits import IDENTITY_TEXT_CHARACTERS_MAX, REFUSAL_CHARACTERS_MAX
from metasrv.model.types import Endpoint
from metasrv.model.wire import byte_string, pack, string, unpack, unsigned, unsigned_or_none
from metasrv.raft.peers.security import (
    NONCE_SIZE_BYTES,
    PeerSecurity,
    SessionKeys,
    acceptor_proof,
    session_keys,
    transcript_of,
)

T = TypeVar("T")

PROTOCOL_VERSION = 2
"""Raised with every change of what peers send each other: frames, handshake, raft messages.

What stays the same in every version: the frames of the handshake, a HELLO that begins with version, role and node id, a
CHALLENGE that begins with the version, and a REFUSAL. (Version 1 of metasrv 0.1 had frames without a check of their head
before that was a rule; `frames.DamagedHeadError` says so.)
"""


class Role(IntEnum):
    """What the dialler wants the connection for."""

    PEER = 0
    """Raft messages and requests; replaces the older connection of the same node."""
    CLIENT = 1
    """Requests only: for nodes that are joining and for one-shot requests."""
    GATEWAY = 2
    """Messages of a gateway on another machine, and nothing else. Releases before 0.3 refuse the number."""


@dataclass
class LocalIdentity:
    """What this node says about itself; `node_id` is None for a one-shot client, `cluster_id` before it has joined."""

    node_id: int | None
    incarnation: str
    endpoint: Endpoint
    cluster_id: str | None


@dataclass(frozen=True)
class RemoteIdentity:
    """What the other side said about itself, covered by its proof if it gave one."""

    node_id: int | None
    incarnation: str
    endpoint: Endpoint
    cluster_id: str | None
    proven: bool = True
    """False for a caller that was let in without a proof although the node that accepted it holds a secret."""


class Agreement(NamedTuple):
    """Outcome of a handshake: who is there, for what, and the session's keys (None: checksums only)."""

    remote: RemoteIdentity
    role: Role
    keys: SessionKeys | None


class DiallerHandshake:
    """The dialling side: `hello`, then `challenged`, then `welcomed`; each may raise PeerError, which ends it."""

    def __init__(self, identity: LocalIdentity, security: PeerSecurity, role: Role, nonce: bytes) -> None:
        self._identity = identity
        self._security = security
        self._role = role
        self._hello = pack((PROTOCOL_VERSION, int(role), *_identity_out(identity), nonce))
        self._challenge = b""
        self._proves = False

    def hello(self) -> bytes:
        """Payload of the HELLO."""
        return self._hello

    def challenged(self, payload: bytes) -> bytes:
        """Payload of the PROOF that answers a CHALLENGE."""
        tree = _tree(payload)
        _check_version("it", tree[0])
        holds_secret = _built(tree, _challenge_in)
        self._challenge = payload
        if self._security.verifies_proof and holds_secret:
            self._proves = True
            return self._security.prove(transcript_of(self._hello, payload))
        if self._security.demands_proof:
            raise AuthenticationError("it holds no shared secret, but raft_secret_strict demands one of every peer")
        return b""

    def welcomed(self, payload: bytes) -> Agreement:
        """The outcome, from the WELCOME."""
        packed_identity, proof = _built(_tree(payload), _welcome_in)
        remote = _built(_tree(packed_identity), _identity_in)
        keys = None
        if self._proves:
            transcript = transcript_of(self._hello, self._challenge, packed_identity)
            secret = self._security.secret_confirmed(proof, transcript)
            if secret is None:
                raise AuthenticationError("its proof of the shared secret (raft_secret) is wrong")
            keys = session_keys(secret, transcript)
        refusal = _different_clusters("it", self._identity.cluster_id, remote.cluster_id)
        if refusal is not None:
            raise AuthenticationError(refusal)
        return Agreement(remote, self._role, keys)


class AcceptorHandshake:
    """The accepting side: `greeted`, `proved`, `welcome`; each may raise PeerError, whose text is the refusal."""

    def __init__(self, identity: LocalIdentity, security: PeerSecurity, nonce: bytes) -> None:
        self._identity = identity
        self._security = security
        self._hello = b""
        self._challenge = pack((PROTOCOL_VERSION, nonce, security.verifies_proof))
        self._secret: bytes | None = None
        self._role = Role.CLIENT
        self._remote: RemoteIdentity | None = None

    @property
    def unproven(self) -> bool:
        """Whether the dialler was let in without a proof although this node has a secret, which is not only accepted."""
        return self._security.secret is not None and self._secret is None

    @property
    def secret_proved(self) -> bool:
        """Whether the dialler proved a secret of this node."""
        return self._secret is not None

    def greeted(self, payload: bytes) -> bytes:
        """Payload of the CHALLENGE that answers a HELLO."""
        tree = _tree(payload)
        _check_version(_caller(tree), tree[0])
        self._role, self._remote = _built(tree, _hello_in)
        self._hello = payload
        return self._challenge

    def proved(self, payload: bytes) -> tuple[RemoteIdentity, Role]:
        """Who the dialler is and what for, if its PROOF is good enough."""
        if self._remote is None:
            raise FrameError("a proof came before the hello")
        if payload and self._security.verifies_proof:
            self._secret = self._security.secret_behind(payload, transcript_of(self._hello, self._challenge))
            if self._secret is None:
                raise AuthenticationError("the shared secret (raft_secret) of this node and of the caller differ")
        elif self._security.demands_proof:
            raise AuthenticationError("this node demands the shared secret (raft_secret) and the caller proved none")
        if self._role is Role.GATEWAY and self.unproven:
            raise AuthenticationError(
                "a gateway has to prove the shared secret (raft_secret), also where raft_secret_strict is off"
            )
        refusal = _different_clusters("the caller", self._identity.cluster_id, self._remote.cluster_id)
        if refusal is not None:
            raise AuthenticationError(refusal)
        own, caller = self._identity, self._remote
        if caller.node_id is not None and caller.node_id == own.node_id:
            if caller.incarnation != own.incarnation:
                raise AuthenticationError(f"node id {own.node_id} is in use by this node; give each node its own id")
            if self._role is Role.PEER:
                raise AuthenticationError(f"node {own.node_id} dialled itself; check its raft address")
        if self._role is Role.GATEWAY and caller.node_id is not None:
            raise AuthenticationError(f"a gateway is no node, but this one says that it is node {caller.node_id}")
        self._remote = replace(caller, proven=not self.unproven)
        return self._remote, self._role

    def welcome(self) -> tuple[bytes, Agreement]:
        """Payload of the WELCOME, and the outcome."""
        if self._remote is None:
            raise FrameError("a welcome came before the hello")
        packed_identity = pack(_identity_out(self._identity))
        proof, keys = b"", None
        if self._secret is not None:
            transcript = transcript_of(self._hello, self._challenge, packed_identity)
            proof = acceptor_proof(self._secret, transcript)
            keys = session_keys(self._secret, transcript)
        return pack((packed_identity, proof)), Agreement(self._remote, self._role, keys)


_DIFFERENT_CLUSTERS = re.compile(r"belongs to cluster (\S+), this node to cluster (\S+)$")
"""What `_different_clusters` says, on whichever side."""


def encode_refusal(sentence: str) -> bytes:
    return sentence[:REFUSAL_CHARACTERS_MAX].encode("utf-8", "backslashreplace")


def decode_refusal(payload: bytes) -> str:
    """The sentence, made safe to log: anybody may have sent it."""
    text = payload.decode("utf-8", "backslashreplace")[:REFUSAL_CHARACTERS_MAX]
    return "".join(character if character.isprintable() else "?" for character in text)


def other_cluster_in(reason: str, ours: str | None) -> str | None:
    """The cluster of the node that ended a handshake for `reason`; None when the reason is another one."""
    named = _DIFFERENT_CLUSTERS.search(reason)
    if named is None or ours not in named.groups():
        return None
    return next((cluster_id for cluster_id in named.groups() if cluster_id != ours), None)


def _different_clusters(who: str, ours: str | None, theirs: str | None) -> str | None:
    """A sentence when both belong to a cluster and not to the same one."""
    if ours is None or theirs is None or ours == theirs:
        return None
    return f"{who} belongs to cluster {theirs}, this node to cluster {ours}"


# ----------------------------------------------------------------------------- payloads


def _identity_out(identity: LocalIdentity) -> tuple[Any, ...]:
    return (identity.node_id, identity.incarnation, tuple(identity.endpoint), identity.cluster_id)


def _identity_in(tree: Any) -> RemoteIdentity:
    node_id, incarnation, (addr, port), cluster_id = tree
    return RemoteIdentity(
        unsigned_or_none(node_id),
        _short(incarnation),
        Endpoint(_short(addr), _port(port)),
        None if cluster_id is None else _short(cluster_id),
    )


def _hello_in(tree: Any) -> tuple[Role, RemoteIdentity]:
    _, role, *identity, nonce = tree
    _nonce(nonce)
    remote = _identity_in(identity)
    if Role(unsigned(role)) is Role.PEER and remote.node_id is None:
        raise ValueError("a peer without a node id")
    return Role(role), remote


def _challenge_in(tree: Any) -> bool:
    _, nonce, holds_secret = tree
    _nonce(nonce)
    if type(holds_secret) is not bool:
        raise TypeError("a boolean was expected")
    return holds_secret


def _welcome_in(tree: Any) -> tuple[bytes, bytes]:
    packed_identity, proof = tree
    return byte_string(packed_identity), byte_string(proof)


def _short(value: Any) -> str:
    text = string(value)
    if len(text) > IDENTITY_TEXT_CHARACTERS_MAX or not text.isprintable():
        raise ValueError("a short printable text was expected")
    return text


def _port(value: Any) -> int:
    port = unsigned(value)
    if port > 65535:
        raise ValueError("a port was expected")
    return port


def _nonce(value: Any) -> None:
    if len(byte_string(value)) != NONCE_SIZE_BYTES:
        raise ValueError("a nonce of another size was expected")


def _tree(payload: bytes) -> tuple[Any, ...]:
    """The fields of a payload, at least one. Raises FrameError."""
    try:
        tree = unpack(payload)
    except CodecError as error:
        raise FrameError(f"the handshake is not understood: {error}") from error
    if type(tree) is not tuple or not tree:
        raise FrameError("the handshake is not understood: it has no fields")
    return tree


def _built(tree: tuple[Any, ...], build: Callable[[Any], T]) -> T:
    try:
        return build(tree)
    except (TypeError, ValueError, LookupError) as error:
        raise FrameError(f"the handshake is not understood: {error}") from error


def _caller(hello: tuple[Any, ...]) -> str:
    """Who says HELLO, in whatever version."""
    known = len(hello) > 2 and type(hello[2]) is int and 0 <= hello[2] < 2**64
    return f"node {hello[2]}" if known else "the caller"


def _check_version(who: str, version: Any) -> None:
    if version != PROTOCOL_VERSION:
        raise FrameError(
            f"{who} speaks peer protocol {version!r:.40}, this node speaks {PROTOCOL_VERSION}; "
            "all nodes of a cluster need releases of one protocol, see docs/upgrading.md"
        )
