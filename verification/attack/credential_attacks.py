"""Attacks with passwords and tokens: floods of wrong ones, and of those that were good once.

Know the wire alone, no node. Each goes on until its time is over, or until it is cut off.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable

from metasrv.grpc_api.http2 import frames as f
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.protocol.versions import SERVER_VERSION
from verification.attack.target import STATUS_METHOD, TOKEN_FIELD, Target, forget, greet, in_base64

HANDSHAKE_METHOD = "/meta.MetaService/Handshake"
CHANGE_PATH = "/v1/ctrl/trigger_snapshot"
STATUS_PATH = "/v1/cluster/status"
AT_ONCE = 20
TOKEN_SIZE_BYTES = 3_000
ADMIN_CONNECTIONS = 8


def handshake_request(username: str, password: str) -> pb.HandshakeRequest:
    """What a client sends to log in."""
    payload = pb.BasicAuth(username=username, password=password).SerializeToString()
    return pb.HandshakeRequest(protocol_version=SERVER_VERSION.digit, payload=payload)


def handshake_message(username: str, password: str) -> bytes:
    """The same, with its five bytes in front."""
    message = handshake_request(username, password).SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


async def wrong_passwords(target: Target) -> None:
    """Handshakes of root with one wrong password after the other."""
    await _log_in(target, lambda: "root")


async def wrong_passwords_of_many_users(target: Target) -> None:
    """Handshakes with another user each, so that no one of them is guessed at often."""
    await _log_in(target, lambda: f"user-{secrets.token_hex(4)}")


async def passwords_taken_back(target: Target) -> None:
    """Handshakes that are reset as soon as the node has begun to look at their passwords."""
    client = await greet(target)
    while target.goes_on():
        first = client.next_id() + 2
        names = [f"user-{secrets.token_hex(4)}" for _ in range(AT_ONCE)]
        await client.send(
            b"".join(client.whole_call(HANDSHAKE_METHOD, handshake_message(name, "guess")) for name in names)
        )
        await asyncio.sleep(0.01)
        streams = range(first, first + 2 * AT_ONCE, 2)
        await client.send(b"".join(f.rst_stream(stream_id, f.ErrorCode.CANCEL) for stream_id in streams))


async def _log_in(target: Target, username: Callable[[], str]) -> None:
    client = await greet(target)
    while target.goes_on():
        messages = [handshake_message(username(), secrets.token_hex(8)) for _ in range(AT_ONCE)]
        await client.send(b"".join(client.whole_call(HANDSHAKE_METHOD, message) for message in messages))
        await asyncio.sleep(0.005)


async def wrong_tokens(target: Target) -> None:
    """Calls with large tokens that nobody has signed, each another one."""
    client = await greet(target)
    while target.goes_on():
        tokens = [in_base64(b"e30.e30." + os.urandom(TOKEN_SIZE_BYTES)) for _ in range(AT_ONCE)]
        calls = [client.whole_call(STATUS_METHOD, bytes(5), (TOKEN_FIELD, token)) for token in tokens]
        await client.send(b"".join(calls))


async def ended_tokens(target: Target) -> None:
    """Calls with the token of a user that is no more: it is signed, and no longer good."""
    client = await greet(target)
    while target.goes_on():
        await client.send(b"".join(client.whole_call(STATUS_METHOD) for _ in range(AT_ONCE)))


async def wrong_admin_tokens(target: Target) -> None:
    """Requests to read, with a token that is not valid."""
    await _ask_on_many(target, lambda: target.get(STATUS_PATH, "GET", f"authorization: Bearer {secrets.token_hex(16)}"))


async def wrong_admin_tokens_for_changes(target: Target) -> None:
    """Requests to change the node, with a token that is not valid."""
    wanted = "x-metasrv-action: attack"
    await _ask_on_many(
        target, lambda: target.get(CHANGE_PATH, "POST", f"authorization: Bearer {secrets.token_hex(16)}", wanted)
    )


async def _ask_on_many(target: Target, request: Callable[[], bytes]) -> None:
    async def ask() -> None:
        reader, writer = await target.connect()
        target.writers.append(writer)
        taking = asyncio.get_running_loop().create_task(forget(reader))
        while target.goes_on() and not taking.done():
            writer.write(b"".join(request() for _ in range(4)))
            await writer.drain()
            await asyncio.sleep(0.002)

    await asyncio.gather(*(ask() for _ in range(ADMIN_CONNECTIONS)))
