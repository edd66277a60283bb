"""Versioned, length-limited encoding of commands and replies (msgpack, explicit schema).

Decoding accepts only the shapes below and raises `CodecError` for anything else; it never builds an object by
name (invariant 7). Tags are positions in the tables: append to them, never reorder. Runs on the event loop: one
call costs microseconds for the usual command.
"""

from __future__ import annotations

from typing import Any

from metasrv.model import commands as c
from metasrv.model.errors import CodecError, TooLargeError
from metasrv.model.limits import COMMAND_SIZE_BYTES_MAX
from metasrv.model.types import Endpoint, KVMeta, Node, SeqV
from metasrv.model.wire import byte_string, integer, pack, string, tag_index, unpack, unsigned, unsigned_or_none

_COMMAND_TYPES: tuple[type[Any], ...] = (
    c.Upsert,
    c.Transaction,
    c.BranchTransaction,
    c.AddNode,
    c.RemoveNode,
    c.SetFeature,
    c.SetClusterSecret,
)
_OPERATION_TYPES: tuple[type[Any], ...] = (
    c.Get,
    c.Put,
    c.Delete,
    c.DeleteByPrefix,
    c.FetchIncrease,
    c.PutSequential,
)
_RESPONSE_TYPES: tuple[type[Any], ...] = (
    c.GetResponse,
    c.PutResponse,
    c.DeleteResponse,
    c.DeleteByPrefixResponse,
    c.FetchIncreaseResponse,
)
_REPLY_TYPES: tuple[type[Any], ...] = (
    c.UpsertReply,
    c.TransactionReply,
    c.BranchTransactionReply,
    c.NodeReply,
    c.FeatureReply,
    c.SecretReply,
    c.ErrorReply,
)
_COMMAND_TAG = {kind: tag for tag, kind in enumerate(_COMMAND_TYPES)}
_OPERATION_TAG = {kind: tag for tag, kind in enumerate(_OPERATION_TYPES)}
_RESPONSE_TAG = {kind: tag for tag, kind in enumerate(_RESPONSE_TYPES)}
_REPLY_TAG = {kind: tag for tag, kind in enumerate(_REPLY_TYPES)}


# ----------------------------------------------------------------------------- commands


def encode_command(command: c.Command) -> bytes:
    """Bytes of one command; raises TooLargeError past the limit."""
    tag = _COMMAND_TAG[type(command)]
    if type(command) is c.Transaction:
        body: tuple[Any, ...] = (
            _branches_out(command.branches),
            command.conditions,
            _operations_out(command.if_then),
            _operations_out(command.else_then),
        )
    elif type(command) is c.BranchTransaction:
        body = (_branches_out(command.branches),)
    else:
        body = tuple(command)
    try:
        data = pack((tag, *body))
    except (OverflowError, ValueError, TypeError) as error:
        raise CodecError(f"the command can not be encoded: {error}") from error
    if len(data) > COMMAND_SIZE_BYTES_MAX:
        raise TooLargeError("the encoded command in bytes", len(data), COMMAND_SIZE_BYTES_MAX)
    return data


def decode_command(data: bytes) -> c.Command:
    """The command in `data`; raises CodecError."""
    return command_from_tree(unpack(data))


def command_from_tree(tree: Any) -> c.Command:
    """A command from its unpacked tree; raises CodecError."""
    try:
        tag, *body = tree
        kind = _COMMAND_TYPES[tag_index(tag)]
        if kind is c.Upsert:
            key, match, operation, value, expire_at, ttl_ms = body
            match_kind, match_seq = match
            return c.Upsert(
                string(key),
                c.MatchSeq(c.MatchKind(match_kind), unsigned(match_seq)),
                c.Operation(operation),
                byte_string(value),
                unsigned_or_none(expire_at),
                unsigned_or_none(ttl_ms),
            )
        if kind is c.Transaction:
            branches, conditions, if_then, else_then = body
            return c.Transaction(
                _branches_in(branches),
                tuple(map(_condition_in, conditions)),
                _operations_in(if_then),
                _operations_in(else_then),
            )
        if kind is c.BranchTransaction:
            (branches,) = body
            return c.BranchTransaction(_branches_in(branches))
        return _small_command(kind, body)
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise CodecError(f"not a command: {error}") from error


def _small_command(kind: type[Any], body: list[Any]) -> c.Command:
    if kind is c.AddNode:
        node, overriding = body
        return c.AddNode(_node_in(node), bool(overriding))
    if kind is c.RemoveNode:
        (node_id,) = body
        return c.RemoveNode(unsigned(node_id))
    if kind is c.SetFeature:
        feature, enable = body
        return c.SetFeature(string(feature), bool(enable))
    name, secret = body
    return c.SetClusterSecret(string(name), byte_string(secret))


def _operations_out(operations: tuple[c.TransactionOperation, ...]) -> list[tuple[Any, ...]]:
    return [(_OPERATION_TAG[type(operation)], *operation) for operation in operations]


def _branches_out(branches: tuple[c.Branch, ...]) -> list[tuple[Any, ...]]:
    return [(branch.predicate, _operations_out(branch.operations)) for branch in branches]


def _operations_in(tree: Any) -> tuple[c.TransactionOperation, ...]:
    return tuple(map(_operation_in, tree))


def _operation_in(tree: Any) -> c.TransactionOperation:
    tag, *body = tree
    kind = _OPERATION_TYPES[tag_index(tag)]
    first = string(body[0])
    if kind is c.Put:
        _, value, expire_at, ttl_ms, match_seq = body
        return c.Put(
            first,
            byte_string(value),
            unsigned_or_none(expire_at),
            unsigned_or_none(ttl_ms),
            unsigned_or_none(match_seq),
        )
    if kind is c.Get or kind is c.DeleteByPrefix:
        (_,) = body
        return c.Get(first) if kind is c.Get else c.DeleteByPrefix(first)
    if kind is c.Delete:
        _, match_seq = body
        return c.Delete(first, unsigned_or_none(match_seq))
    if kind is c.FetchIncrease:
        _, delta, match_seq, floor = body
        return c.FetchIncrease(first, integer(delta), unsigned_or_none(match_seq), unsigned(floor))
    _, sequence_key, value, expires_at_ms, ttl_ms = body
    return c.PutSequential(
        first,
        string(sequence_key),
        byte_string(value),
        unsigned_or_none(expires_at_ms),
        unsigned_or_none(ttl_ms),
    )


def _branches_in(tree: Any) -> tuple[c.Branch, ...]:
    return tuple(
        c.Branch(None if predicate is None else _expression_in(predicate), _operations_in(operations))
        for predicate, operations in tree
    )


def _expression_in(tree: Any) -> c.Expression:
    combine, expressions, conditions = tree
    return c.Expression(
        c.Combine(combine),
        tuple(map(_expression_in, expressions)),
        tuple(map(_condition_in, conditions)),
    )


def _condition_in(tree: Any) -> c.Condition:
    key, target, operand, comparison = tree
    kind = c.Target(target)
    checked = byte_string(operand) if kind is c.Target.VALUE else unsigned(operand)
    return c.Condition(string(key), kind, checked, c.Comparison(comparison))


# ----------------------------------------------------------------------------- replies


def encode_reply(reply: c.Reply) -> bytes:
    """Bytes of one reply, for a follower that forwarded the command."""
    tag = _REPLY_TAG[type(reply)]
    if isinstance(reply, c.TransactionReply):
        return pack((tag, reply.success, _responses_out(reply.responses), reply.execution_path))
    if isinstance(reply, c.BranchTransactionReply):
        return pack((tag, reply.executed_branch, _responses_out(reply.responses)))
    return pack((tag, *reply))


def decode_reply(data: bytes) -> c.Reply:
    """The reply in `data`; raises CodecError."""
    try:
        tag, *body = unpack(data)
        kind = _REPLY_TYPES[tag_index(tag)]
        if kind is c.UpsertReply:
            prev, result = body
            return c.UpsertReply(_record_in(prev), _record_in(result))
        if kind is c.TransactionReply:
            success, responses, path = body
            return c.TransactionReply(bool(success), _responses_in(responses), string(path))
        if kind is c.BranchTransactionReply:
            executed, responses = body
            return c.BranchTransactionReply(unsigned_or_none(executed), _responses_in(responses))
        if kind is c.NodeReply:
            before, after = body
            return c.NodeReply(
                None if before is None else _node_in(before),
                None if after is None else _node_in(after),
            )
        (only,) = body
        if kind is c.FeatureReply:
            return c.FeatureReply(tuple(map(string, only)))
        if kind is c.SecretReply:
            return c.SecretReply(byte_string(only))
        return c.ErrorReply(string(only))
    except (TypeError, ValueError, LookupError) as error:
        raise CodecError(f"not a reply: {error}") from error


def _responses_out(responses: tuple[c.OperationResponse, ...]) -> list[tuple[Any, ...]]:
    return [(_RESPONSE_TAG[type(response)], *response) for response in responses]


def _responses_in(tree: Any) -> tuple[c.OperationResponse, ...]:
    return tuple(map(_response_in, tree))


def _response_in(tree: Any) -> c.OperationResponse:
    tag, *body = tree
    kind = _RESPONSE_TYPES[tag_index(tag)]
    first = string(body[0])
    if kind is c.PutResponse:
        _, prev, current = body
        return c.PutResponse(first, _record_in(prev), _record_in(current))
    if kind is c.GetResponse:
        _, value = body
        return c.GetResponse(first, _record_in(value))
    if kind is c.DeleteResponse:
        _, success, prev = body
        return c.DeleteResponse(first, bool(success), _record_in(prev))
    if kind is c.DeleteByPrefixResponse:
        _, count = body
        return c.DeleteByPrefixResponse(first, unsigned(count))
    _, before_seq, before, after_seq, after = body
    return c.FetchIncreaseResponse(first, unsigned(before_seq), unsigned(before), unsigned(after_seq), unsigned(after))


def _record_in(tree: Any) -> SeqV | None:
    if tree is None:
        return None
    seq, data, meta = tree
    if meta is None:
        return SeqV(unsigned(seq), byte_string(data))
    expire_at, proposed_at_ms = meta
    return SeqV(
        unsigned(seq),
        byte_string(data),
        KVMeta(unsigned_or_none(expire_at), unsigned_or_none(proposed_at_ms)),
    )


# ----------------------------------------------------------------------------- nodes
def node_from_tree(tree: Any) -> Node:
    """A node from its unpacked tree; raises CodecError."""
    try:
        return _node_in(tree)
    except (TypeError, ValueError) as error:
        raise CodecError(f"not a node: {error}") from error


def _node_in(tree: Any) -> Node:
    node_id, (host, port), grpc_api_addr, advertise = tree
    return Node(
        unsigned(node_id),
        Endpoint(string(host), unsigned(port)),
        string(grpc_api_addr),
        None if advertise is None else string(advertise),
    )
