"""The link of a gateway on another machine: messages as whoever holds the secret of peers may send them, to a node.

The first byte says whether the gateway has greeted the node; the rest is one message after another: kind, one byte of
length, and that much msgpack of its fields.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from metasrv.config.model import Config
from metasrv.gateway.messages import REMOTE_VERSION, FromGateway
from metasrv.gateway.remote_gateways import RemoteGateways
from metasrv.model.errors import CodecError, PeerError
from metasrv.model.wire import pack, unpack
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status
from verification.fuzz.target import Target, fuzz_loop, no_logged_errors, run_callbacks


class _Connection:
    """Takes what the node sends."""

    address = "memory"
    buffered_bytes = 0

    def __init__(self) -> None:
        self.ended = False

    def send_gateway(self, payload: bytes) -> None:
        unpack(payload[1:])

    def abort(self, reason: str) -> None:
        del reason
        self.ended = True

    close = abort


def _run(data: bytes) -> None:
    with no_logged_errors(), tempfile.TemporaryDirectory() as directory:
        fuzz_loop().run_until_complete(_linked(data, Path(directory)))
        run_callbacks(3)


async def _linked(data: bytes, directory: Path) -> None:
    machine = StateMachine.open(str(directory / "state.db"))
    context, _ = fake_context(machine, Config(), leader_status(), commits=True)
    connection = _Connection()
    gateways = RemoteGateways(context)
    stream = gateways.begin(connection)
    try:
        if data[:1] != b"\0":
            stream.frame_received(b"\0" + pack(((FromGateway.GREET, REMOTE_VERSION, "g", "0.0.0"),)))
        for message in _messages(data[1:]):
            if not connection.ended:
                stream.frame_received(message)
    except (PeerError, CodecError) as error:
        connection.abort(str(error))  # as a connection does
    finally:
        connection.abort("the input ends")
        stream.connection_lost("the input ends")
        with suppress(RuntimeError):
            gateways._pool.shutdown()
        machine.close()


def _messages(content: bytes) -> Iterator[bytes]:
    while len(content) >= 2:
        kind, size_bytes = content[0] % 32, content[1]
        fields, content = content[2 : 2 + size_bytes], content[2 + size_bytes :]
        try:
            tree = unpack(fields)
        except CodecError:
            yield b"\0" + fields
        else:
            yield b"\0" + pack(((kind, *tree),) if type(tree) is tuple else ((kind, tree),))


def _message(kind: FromGateway, *fields: object) -> bytes:
    packed = pack(fields)
    return bytes([kind, len(packed)]) + packed


TARGET = Target(
    "gateway_frames",
    _run,
    (
        b"\0" + _message(FromGateway.GREET, 1, "g", "0.0.0"),
        b"\1" + _message(FromGateway.READ, 1, 2, 1000, [["a", "b"], ["c"]]) + _message(FromGateway.LIST, 2, 2, 1, "", 5),
        b"\1" + _message(FromGateway.VIEW, 1, 0, 1000, True) + _message(FromGateway.VIEW_KEYS, 2, 1, ["k"]),
        b"\1" + _message(FromGateway.WATCH, 1, "a", "b", True) + _message(FromGateway.WATCH_PAGE, 1),
        b"\1" + _message(FromGateway.PROPOSE, 1, True, 1000, b"command") + _message(FromGateway.BARRIER, 2, True, 1000),
    ),
)
