"""Requests between nodes: forwarded writes, read indexes, joins and leaves, one hop each.

Encodes what one node asks another over `transport.request`, and answers what others ask. A request that may have been
executed is never sent twice (D15). Runs on the event loop.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from metasrv.consensus import Consensus, JoinRequest
from metasrv.model.codec import decode_command, decode_reply, encode_command, encode_reply, node_from_tree
from metasrv.model.commands import Command, Reply
from metasrv.model.errors import CodecError, InvalidRequestError, NotLeaderError
from metasrv.model.types import Endpoint
from metasrv.model.wire import pack, string, unpack, unsigned

PROPOSE = "propose"
READ_INDEX = "read_index"
DESCRIBE = "describe"
JOIN = "join"
LEAVE = "leave"


class Description(NamedTuple):
    """What a node says of its cluster to one that wants to join."""

    cluster_id: str | None
    leader_id: int | None
    leader_endpoint: Endpoint | None


class Requester(Protocol):
    """The part of the transport that asks."""

    async def request(self, target: int | Endpoint, method: str, payload: bytes, timeout_ms: int) -> bytes: ...


class LocalReads(Protocol):
    """The leader's own read index."""

    async def read_index(self, timeout_ms: int) -> int: ...

    def describe(self) -> Description: ...


class Forwarding:
    """Asks other nodes."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    async def propose(self, leader_id: int, command: Command, timeout_ms: int) -> Reply:
        payload = pack((timeout_ms, encode_command(command)))
        return decode_reply(await self._requester.request(leader_id, PROPOSE, payload, timeout_ms))

    async def read_index(self, leader_id: int, timeout_ms: int) -> int:
        answer = unpack(await self._requester.request(leader_id, READ_INDEX, pack((timeout_ms,)), timeout_ms))
        return unsigned(answer)

    async def describe(self, target: int | Endpoint, timeout_ms: int) -> Description:
        cluster_id, leader_id, endpoint = unpack(await self._requester.request(target, DESCRIBE, pack(()), timeout_ms))
        return Description(
            None if cluster_id is None else string(cluster_id),
            None if leader_id is None else unsigned(leader_id),
            None if endpoint is None else Endpoint(string(endpoint[0]), unsigned(endpoint[1])),
        )

    async def join(self, target: int | Endpoint, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        payload = pack((timeout_ms, hops, request.node, request.incarnation, request.learner))
        await self._requester.request(target, JOIN, payload, timeout_ms)

    async def leave(self, target: int | Endpoint, node_id: int, timeout_ms: int, hops: int) -> None:
        await self._requester.request(target, LEAVE, pack((timeout_ms, hops, node_id)), timeout_ms)


class Answering:
    """Answers other nodes."""

    def __init__(self, consensus: Consensus, local: LocalReads, forwarding: Forwarding) -> None:
        self._consensus = consensus
        self._local = local
        self._forwarding = forwarding

    async def answer(self, method: str, payload: bytes) -> bytes:
        """The answer to one request; raises RequestError, which the transport sends back as such."""
        try:
            tree = unpack(payload)
            if method == PROPOSE:
                timeout_ms, encoded = tree
                command = decode_command(encoded)
                return encode_reply(await self._consensus.propose_local(command, unsigned(timeout_ms)))
            if method == READ_INDEX:
                (timeout_ms,) = tree
                return pack(await self._local.read_index(unsigned(timeout_ms)))
            if method == DESCRIBE:
                return pack(self._local.describe())
            if method == JOIN:
                timeout_ms, hops, node, incarnation, learner = tree
                request = JoinRequest(node_from_tree(node), string(incarnation), bool(learner))
                await self._join(request, unsigned(timeout_ms), unsigned(hops))
                return pack(None)
            if method == LEAVE:
                timeout_ms, hops, node_id = tree
                await self._leave(unsigned(node_id), unsigned(timeout_ms), unsigned(hops))
                return pack(None)
        except (CodecError, TypeError, ValueError) as error:
            raise InvalidRequestError(f"a peer's {method} request is malformed: {error}") from error
        raise InvalidRequestError(f"a peer asked for {method!r}, which this version of metasrv does not know")

    async def _join(self, request: JoinRequest, timeout_ms: int, hops: int) -> None:
        try:
            await self._consensus.join(request, timeout_ms)
        except NotLeaderError as error:
            if hops == 0 or error.leader_id is None:
                raise
            await self._forwarding.join(error.leader_id, request, timeout_ms, hops - 1)

    async def _leave(self, node_id: int, timeout_ms: int, hops: int) -> None:
        try:
            await self._consensus.leave(node_id, timeout_ms)
        except NotLeaderError as error:
            if hops == 0 or error.leader_id is None:
                raise
            await self._forwarding.leave(error.leader_id, node_id, timeout_ms, hops - 1)
