"""Commands and replies as bytes: msgpack of the shapes in `command_table.py`, limited in length.

Decoding accepts only those shapes and raises `CodecError` for anything else; it never builds an object by name
(invariant 7). Runs on the event loop: one call costs microseconds for the usual command.
"""

from __future__ import annotations

from typing import Any

from metasrv.model.command_table import ANY_COMMAND, ANY_REPLY, NODE
from metasrv.model.commands import Command, Reply
from metasrv.model.errors import CodecError, TooLargeError
from metasrv.model.limits import COMMAND_SIZE_BYTES_MAX
from metasrv.model.types import Node
from metasrv.model.wire import pack, unpack

_read_command, _COMMAND_WRITERS = ANY_COMMAND
_read_reply, _REPLY_WRITERS = ANY_REPLY


def encode_command(command: Command) -> bytes:
    """Bytes of one command. Raises TooLargeError past the limit, CodecError for a value that msgpack cannot hold."""
    try:
        data = pack(_COMMAND_WRITERS[type(command)](command))
    except (OverflowError, ValueError, TypeError) as error:
        raise CodecError(f"the command cannot be encoded: {error}") from error
    if len(data) > COMMAND_SIZE_BYTES_MAX:
        raise TooLargeError("the encoded command in bytes", len(data), COMMAND_SIZE_BYTES_MAX)
    return data


def decode_command(data: bytes) -> Command:
    """The command in `data`; raises CodecError."""
    return command_from_tree(unpack(data))


def command_from_tree(tree: Any) -> Command:
    """A command from its unpacked tree; raises CodecError."""
    try:
        command: Command = _read_command(tree)
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise CodecError(f"not a command: {error}") from error
    return command


def encode_reply(reply: Reply) -> bytes:
    """Bytes of one reply, for a follower that forwarded the command."""
    return pack(_REPLY_WRITERS[type(reply)](reply))


def decode_reply(data: bytes) -> Reply:
    """The reply in `data`; raises CodecError."""
    try:
        reply: Reply = _read_reply(unpack(data))
    except (TypeError, ValueError, LookupError) as error:
        raise CodecError(f"not a reply: {error}") from error
    return reply


def node_from_tree(tree: Any) -> Node:
    """A node from its unpacked tree; raises CodecError."""
    try:
        return NODE.read(tree)
    except (TypeError, ValueError) as error:
        raise CodecError(f"not a node: {error}") from error
