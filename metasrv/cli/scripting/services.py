"""What scripts ask of a cluster: each call is a coroutine, and its answer a tree or a sentence.

A tree has dictionaries, lists, text, numbers and None; bytes in it are the value of a record. Runs on the loop of the
script's process; calls of the admin API wait in a thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from metasrv.cli.ctl_admin import AdminClient
from metasrv.cli.scripting.transactions import transaction_of
from metasrv.client import AsyncClient
from metasrv.model import commands as c
from metasrv.model.errors import InvalidRequestError, MetasrvError
from metasrv.model.types import SeqV

Answer = tuple[Any, str | None]
"""A value and None, or None and what went wrong."""


class Services:
    """The clients of one script, made when they are first used."""

    def __init__(self, connect: Callable[[str], AsyncClient], administer: Callable[[str], AdminClient]) -> None:
        """`connect` and `administer` make a client for an address; they raise MetasrvError."""
        self._connect = connect
        self._administer = administer
        self._clients: dict[int, AsyncClient] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    async def call(self, kind: str, number: int, address: bytes, method: str, *arguments: Any) -> Answer:
        """Call a method of client `number`, of kind `grpc` or `admin`."""
        what = "gRPC error" if kind == "grpc" else "Admin API error"
        try:
            endpoint = _utf8(address, "an address")
            if kind == "grpc":
                client = self._clients.get(number)
                if client is None:
                    client = self._clients[number] = self._connect(endpoint)
                return await _GRPC[method](client, *arguments), None
            return await asyncio.to_thread(lambda: _ADMIN[method](self._administer(endpoint), *arguments)), None
        except _InvalidTransactionError as error:
            return None, f"Invalid transaction: {error}"
        except MetasrvError as error:
            return None, f"{what}: {error}"


class _InvalidTransactionError(MetasrvError):
    """A transaction's table is wrong."""


# ----------------------------------------------------------------------------- keys


async def _get(client: AsyncClient, key: bytes) -> Any:
    return _record(await client.get(_utf8(key, "a key")))


async def _upsert(client: AsyncClient, key: bytes, value: bytes) -> Any:
    reply = await client.upsert(_utf8(key, "a key"), value)
    return {"ident": None, "prev": _record(reply.prev), "result": _record(reply.result)}


async def _transaction(client: AsyncClient, table: Any = None) -> Any:
    try:
        transaction = transaction_of(table)
    except InvalidRequestError as error:
        raise _InvalidTransactionError(str(error)) from error
    reply = await client.transaction(transaction)
    responses = [{"response": _response(response)} for response in reply.responses]
    return {"success": reply.success, "execution_path": reply.execution_path, "responses": responses}


def _response(response: c.OperationResponse) -> Any:
    if isinstance(response, c.PutResponse):
        fields = {"key": response.key, "prev_value": _record(response.prev), "current": _record(response.current)}
        return {"Put": fields}
    if isinstance(response, c.GetResponse):
        return {"Get": {"key": response.key, "value": _record(response.value)}}
    if isinstance(response, c.DeleteResponse):
        return {
            "Delete": {"key": response.key, "success": response.success, "prev_value": _record(response.prev)},
        }
    raise InvalidRequestError(f"the server answered with {type(response).__name__}, which was not asked for")


def _record(record: SeqV | None) -> Any:
    if record is None:
        return None
    meta = None
    if record.meta is not None:
        meta = {name: value for name, value in record.meta._asdict().items() if value is not None}
    return {"seq": record.seq, "meta": meta, "data": record.data}


def _utf8(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{what} must be UTF-8") from error


_GRPC: dict[str, Any] = {"get": _get, "upsert": _upsert, "transaction": _transaction}

# ----------------------------------------------------------------------------- admin API


def _transfer_leader(client: AdminClient, to: float | None = None) -> Any:
    if to is not None and (to != int(to) or to < 0):
        raise InvalidRequestError(f"{to} is no node id")
    query = None if to is None else int(to)
    return client.json("/v1/ctrl/trigger_transfer_leader", ("from", "to", "voter_ids"), to=query)


def _trigger_snapshot(client: AdminClient) -> Any:
    client.text("/v1/ctrl/trigger_snapshot")
    return True


def _set_feature(client: AdminClient, feature: bytes, enable: bool) -> Any:
    name = _utf8(feature, "a feature's name")
    return client.json("/v1/features/set", ("features", "enabled"), feature=name, enable=json.dumps(enable))


_ADMIN: dict[str, Any] = {
    "metrics": lambda client: client.text("/v1/metrics"),
    "status": lambda client: client.json("/v1/cluster/status", ("id", "voters", "leader")),
    "transfer_leader": _transfer_leader,
    "trigger_snapshot": _trigger_snapshot,
    "list_features": lambda client: client.json("/v1/features/list", ("features", "enabled")),
    "set_feature": _set_feature,
}
