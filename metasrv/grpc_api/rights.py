"""What a user may ask for: every method of MetaService, and the rights on keys and prefixes that a request needs.

Root is not looked at here, so clusters without users pay nothing. A method without a row stops the import: nothing is
open because somebody forgot it. Rights hold for what a request names, before it runs; `dispatch.py` looks again at open
streams when users change. Runs on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from metasrv.grpc_api import kv_json, kv_json_slices
from metasrv.grpc_api.failures import StatusError
from metasrv.grpc_api.http2.status import StatusCode
from metasrv.grpc_api.requests import branch_transaction_from, transaction_from
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, InvariantError
from metasrv.model.users import Right, User
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb
from metasrv.state.format import prefix_end


class RightMissingError(StatusError):
    """The user has no right to what it asks for."""

    def __init__(self, user: User, right: Right, what: str) -> None:
        super().__init__(StatusCode.PERMISSION_DENIED, f"user {user.name} has no right to {right} {what}")


def require(user: User, right: Right, start: str, what: str = "the key") -> None:
    """Raise RightMissingError unless the user has the right on `start` and all keys that start with it."""
    if not user.may(right, start):
        raise RightMissingError(user, right, f"{what} {start!r}")


def require_range(user: User, start: str, end: str | None) -> None:
    """Raise RightMissingError unless the user may read every key of [start, end); None: the key `start` alone."""
    if end is None:
        require(user, Right.READ, start)
        return
    for grant in user.grants:
        last = prefix_end(grant.prefix)
        if start.startswith(grant.prefix) and (last is None or end <= last):
            return
    raise RightMissingError(user, Right.READ, f"the keys from {start!r} to {end!r}")


# ----------------------------------------------------------------------------- commands


def require_command(user: User, command: c.Transaction | c.BranchTransaction) -> None:
    """Raise RightMissingError unless the user may do everything in every branch, and read what conditions look at."""
    if isinstance(command, c.Transaction):
        _require_conditions(user, command.conditions)
        _require_operations(user, command.if_then)
        _require_operations(user, command.else_then)
    for branch in command.branches:
        if branch.predicate is not None:
            _require_expression(user, branch.predicate)
        _require_operations(user, branch.operations)


def _require_expression(user: User, expression: c.Expression) -> None:
    for part in expression.expressions:
        _require_expression(user, part)
    _require_conditions(user, expression.conditions)


def _require_conditions(user: User, conditions: Iterable[c.Condition]) -> None:
    for condition in conditions:
        whole = condition.target is c.Target.KEYS_WITH_PREFIX
        require(user, Right.READ, condition.key, "the prefix" if whole else "the key")


def _require_operations(user: User, operations: Iterable[c.TransactionOperation]) -> None:
    for operation in operations:
        if isinstance(operation, c.Get):
            require(user, Right.READ, operation.key)
        elif isinstance(operation, c.DeleteByPrefix):
            require(user, Right.WRITE, operation.prefix, "the prefix")
        elif isinstance(operation, c.PutSequential):
            require(user, Right.WRITE, operation.prefix, "the prefix")
            require(user, Right.WRITE, operation.sequence_key)
        else:
            require(user, Right.WRITE, operation.key)


# ----------------------------------------------------------------------------- methods


async def _upsert(user: User, request: pb.RaftRequest) -> None:
    try:
        command = await kv_json_slices.parse_write(request.data)
    except InvalidRequestError:
        return  # the method itself says what is wrong; nothing of it is carried out
    require(user, Right.WRITE, command.key)


async def _transaction(user: User, request: pb.TxnRequest) -> None:
    require_command(user, transaction_from(request))


async def _branch_transaction(user: User, request: pb.KvTransactionRequest) -> None:
    require_command(user, branch_transaction_from(request))


async def _migrate(user: User, request: pb.MigrateRequest) -> None:
    require(user, Right.WRITE, "", "the prefix")


async def _looks_at_the_node(user: User, request: Any) -> None:
    """Every user may: nothing of it is a key."""


def _read(user: User, request: pb.RaftRequest) -> None:
    try:
        query = kv_json.parse_read(request.data)
    except InvalidRequestError:
        return  # as above
    if isinstance(query, kv_json.ListPrefix):
        require(user, Right.READ, query.prefix, "the prefix")
        return
    for key in query.keys:
        require(user, Right.READ, key)


def _list(user: User, request: pb.KvListRequest) -> None:
    require(user, Right.READ, request.prefix, "the prefix")


def _watch(user: User, request: pb.WatchRequest) -> None:
    require_range(user, request.key, request.key_end if request.HasField("key_end") else None)


def _all_keys(user: User, request: Any) -> None:
    """Exports hold every key and more; a layout shows the directories of all."""
    require(user, Right.READ, "", "the prefix")


_UNARY: Mapping[m.Method, Callable[[User, Any], Awaitable[None]]] = {
    m.KV_API: _upsert,
    m.TRANSACTION: _transaction,
    m.KV_TRANSACTION: _branch_transaction,
    m.MEMBER_LIST: _looks_at_the_node,
    m.GET_CLUSTER_STATUS: _looks_at_the_node,
    m.GET_CLIENT_INFO: _looks_at_the_node,
    m.MIGRATE: _migrate,
}
_STREAMS: Mapping[m.Method, Callable[[User, Any], None]] = {
    m.KV_READ_V1: _read,
    m.KV_LIST: _list,
    m.EXPORT: _all_keys,
    m.EXPORT_V1: _all_keys,
    m.SNAPSHOT_KEYS_LAYOUT: _all_keys,
    m.WATCH: _watch,
}
_KEY_BY_KEY = frozenset((m.KV_GET_MANY,))
"""`readable_keys` looks at each request of the stream."""
_WITHOUT_A_USER = frozenset((m.HANDSHAKE,))


def check_methods(methods: Iterable[m.Method]) -> None:
    """Raise InvariantError unless it is known of each method what a user needs for it."""
    for method in methods:
        if method not in _UNARY and method not in _STREAMS and method not in _KEY_BY_KEY | _WITHOUT_A_USER:
            raise InvariantError(f"{method.name} has no row in grpc_api/rights.py: what may a user ask of it?")


check_methods(m.METHODS)


async def require_unary(user: User, method: m.Method, request: Any) -> None:
    """Raise RightMissingError unless the user may make this call of a method with a single reply."""
    await _UNARY[method](user, request)


def require_stream(user: User, method: m.Method, request: Any) -> None:
    """The same for a method with a single request and many replies."""
    _STREAMS[method](user, request)


async def readable_keys(
    requests: AsyncIterator[pb.KvGetManyRequest], user: Callable[[], User]
) -> AsyncIterator[pb.KvGetManyRequest]:
    """The requests of KvGetMany; raises RightMissingError at the first key that the user may not read by then."""
    async for request in requests:
        require(user(), Right.READ, request.key)
        yield request
