"""Requests of clients, once their frames are read: protobuf messages, the JSON of KvApi, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from metasrv.grpc_api.kv_json import parse_read, parse_write
from metasrv.grpc_api.requests import branch_transaction_from, transaction_from
from metasrv.grpc_api.tokens import TokenError, TokenSigner
from metasrv.model.codec import decode_command, encode_command
from metasrv.model.errors import CodecError, RequestError
from metasrv.protocol.proto import meta_pb2 as pb
from verification.fuzz.target import Target

_SIGNER = TokenSigner(b"k" * 32, "password")


def _write(data: bytes) -> Any:
    return parse_write(data.decode("utf-8", "surrogateescape"))


def _read(data: bytes) -> None:
    parse_read(data.decode("utf-8", "surrogateescape"))


def _verify(data: bytes) -> None:
    _SIGNER.verify(data, 1_000_000)


_PARSERS: tuple[Callable[[bytes], Any], ...] = (
    lambda data: transaction_from(pb.TxnRequest.FromString(data)),
    lambda data: branch_transaction_from(pb.KvTransactionRequest.FromString(data)),
    _write,
    _read,
    _verify,
)


def _run(data: bytes) -> None:
    if not data:
        return
    try:
        command = _PARSERS[data[0] % len(_PARSERS)](data[1:])
    except (RequestError, DecodeError, TokenError):
        return
    if command is None:
        return
    try:
        encoded = encode_command(command)
    except (CodecError, RequestError):
        return
    if decode_command(encoded) != command:
        raise AssertionError(f"{command!r} became {decode_command(encoded)!r}")


_PUT = pb.TxnOp(put=pb.TxnPutRequest(key="a", value=b"1", prev_value=True))
_GET = pb.TxnOp(get=pb.TxnGetRequest(key="a"))
_CONDITION = pb.TxnCondition(key="a", seq=3, expected=pb.TxnCondition.ConditionResult.GE)
TARGET = Target(
    "grpc_messages",
    _run,
    (
        b"\0" + pb.TxnRequest(condition=[_CONDITION], if_then=[_PUT, _GET], else_then=[_GET]).SerializeToString(),
        b"\1" + pb.KvTransactionRequest().SerializeToString(),
        b'\2{"UpsertKV":{"key":"a","seq":{"GE":0},"value":{"Update":[49]},"value_meta":{"expire_at":null,"ttl":null}}}',
        b'\2{"UpsertKV":{"key":"a","seq":"Any","value":"Delete","value_meta":null}}',
        b'\3{"GetKV":{"key":"a"}}',
        b'\3{"MGetKV":{"keys":["a","b"]}}',
        b'\3{"ListKV":{"prefix":"a"}}',
        b"\4" + _SIGNER.sign("root", 1_000_000),
    ),
)
