"""The same JSON as `kv_json`, for values too large to be read or written in one step of the loop.

A byte string is an array of numbers, four bytes of text for each byte: 1 MiB took 0.1 s to read and 0.1 s to answer. A
thread would not help, because the interpreter's lock is held all the while. So long arrays are cut out of the text and
turned into bytes piece by piece, and answers are made and sent as pieces of the encoded message, which is never put
together: that took 50 ms for 4 MiB. The loop turns in between. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets

from metasrv.grpc_api import kv_json
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError
from metasrv.model.types import SeqV
from metasrv.model.varints import varint
from metasrv.protocol.proto import meta_pb2 as pb

SLICE_CHARACTERS = 16 * 1024
"""Text that is parsed in one piece: 0.2 to 0.4 ms. Shorter requests are not cut."""
SLICE_BYTES = 32 * 1024
"""Bytes of a value that are written in one piece: 0.3 ms."""
WHOLE_SIZE_BYTES_MAX = 8 * 1024
"""Records up to this size are not cut."""
_QUOTE_OR_BRACKET = re.compile(r'["\[]')
_QUOTE_OR_ESCAPE = re.compile(r'["\\]')
_NUMBERS = re.compile(r"[0-9, \t\r\n]*")
# The three digits of each byte, as tables of `bytes.translate`; a space stands for a leading zero.
_HUNDREDS, _TENS, _ONES = (bytes(f"{number:3}".encode()[place] for number in range(256)) for place in range(3))
_COMMAS = b"," * SLICE_BYTES
_DATA_FIELD = pb.RaftReply.DESCRIPTOR.fields_by_name["data"].number << 3 | 2
"""The tag of the reply's text in its encoding: the field's number, and the kind of everything that has a length."""


async def parse_write(text: str) -> c.Upsert:
    """As `kv_json.parse_write`; requests from other connections go on meanwhile."""
    if len(text) <= SLICE_CHARACTERS:
        return kv_json.parse_write(text)
    await asyncio.sleep(0)  # the text has just been copied out of its message
    template, byte_strings = await _cut_out(text)
    await asyncio.sleep(0)  # the bytes have just been joined, and will be encoded next
    return kv_json.parse_write(template, byte_strings)


async def _cut_out(text: str) -> tuple[str, dict[str, bytes]]:
    """The text with a number instead of each long array of bytes, and what these numbers stand for."""
    # Nobody can guess the number, so a request cannot contain it. It is a fraction, which no field of a request may be.
    nonce = f"0.{secrets.randbits(128)}"
    byte_strings: dict[str, bytes] = {}
    template: list[str] = []
    copied = position = 0
    while position < len(text):
        found = _QUOTE_OR_BRACKET.search(text, position, position + SLICE_CHARACTERS)
        if found is None:
            position += SLICE_CHARACTERS
        elif found[0] == '"':
            position = await _after_string(text, found.end())
            continue
        else:
            start, position = found.end(), await _after_numbers(text, found.end())
            if position - start > SLICE_CHARACTERS and text[position : position + 1] == "]":
                name = f"{nonce}{len(byte_strings):04}"
                byte_strings[name] = await _byte_string(text, start, position)
                template += (text[copied : start - 1], f" {name} ")
                position += 1
                copied = position
            continue
        await asyncio.sleep(0)
    template.append(text[copied:])
    return "".join(template), byte_strings


async def _after_string(text: str, position: int) -> int:
    """Where the string ends that begins before `position`."""
    while position < len(text):
        found = _QUOTE_OR_ESCAPE.search(text, position, position + SLICE_CHARACTERS)
        if found is None:
            position += SLICE_CHARACTERS
            await asyncio.sleep(0)
        elif found[0] == '"':
            return found.end()
        else:
            position = found.end() + 1
    return position


async def _after_numbers(text: str, position: int) -> int:
    """The first place from `position` on that is no part of an array of unsigned numbers."""
    while True:
        found = _NUMBERS.match(text, position, position + SLICE_CHARACTERS)
        if found is None or found.end() < position + SLICE_CHARACTERS:
            return position if found is None else found.end()
        position = found.end()
        await asyncio.sleep(0)


async def _byte_string(text: str, start: int, end: int) -> bytes:
    """The bytes of the array between `start` and `end`, which holds more than a slice."""
    pieces: list[bytes] = []
    while start < end:
        cut = end if end - start <= SLICE_CHARACTERS else text.rfind(",", start, start + SLICE_CHARACTERS)
        if cut < 0:
            raise InvalidRequestError("an array of bytes holds a number that is not a byte")
        piece = text[start:cut]
        if not piece.strip() or cut == end - 1:
            raise InvalidRequestError("the request is not JSON: an array has a comma without a number")
        pieces.append(_bytes_of(piece))
        start = cut + 1
        await asyncio.sleep(0)
    return b"".join(pieces)


def _bytes_of(piece: str) -> bytes:
    """The bytes that unsigned numbers between commas stand for."""
    try:
        numbers = json.loads(f"[{piece}]")
    except ValueError as error:
        raise InvalidRequestError(f"the request is not JSON: in an array of bytes: {error}") from error
    try:
        return bytes(numbers)
    except ValueError as error:
        raise InvalidRequestError("'Update' holds a number that is not a byte") from error


async def upsert_reply(reply: c.UpsertReply) -> pb.RaftReply | list[bytes]:
    """The RaftReply that `kv_json.upsert_reply_text` belongs into, or the pieces of its encoding when it is large."""
    records = (reply.prev, reply.result)
    if sum(0 if record is None else len(record.data) for record in records) <= WHOLE_SIZE_BYTES_MAX:
        return pb.RaftReply(data=kv_json.upsert_reply_text(reply))
    pieces = [b"", b'{"ident":null,"prev":']
    await _add_record(pieces, reply.prev)
    pieces.append(b',"result":')
    await _add_record(pieces, reply.result)
    pieces.append(b"}")
    pieces[0] = bytes((_DATA_FIELD,)) + varint(sum(map(len, pieces)))
    return pieces


async def _add_record(pieces: list[bytes], record: SeqV | None) -> None:
    if record is None:
        pieces.append(b"null")
        return
    # What stands before the numbers is written by the same code as always.
    tree = kv_json.record_tree(record._replace(data=b""))
    pieces.append(json.dumps(tree, separators=(",", ":")).removesuffix("]}").encode())
    for start in range(0, len(record.data), SLICE_BYTES):
        pieces.append(_numbers_text(record.data[start : start + SLICE_BYTES]))
        await asyncio.sleep(0)
    if record.data:
        pieces[-1] = pieces[-1].removesuffix(b",")
    pieces.append(b"]}")


def _numbers_text(data: bytes) -> bytes:
    """Each byte as a number and a comma. Four times as fast as joining texts: nothing is done number by number."""
    padded = bytearray(4 * len(data))
    padded[0::4] = data.translate(_HUNDREDS)
    padded[1::4] = data.translate(_TENS)
    padded[2::4] = data.translate(_ONES)
    padded[3::4] = _COMMAS[: len(data)]
    return bytes(padded.translate(None, b" "))
