"""Whether nodes hold the same state: their exports, line by line, at the same applied entry.

Asks nodes over gRPC as a backup program would. Runs on an event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any

import grpc

from metasrv.client.connection import CallFailedError, Connection, Credentials
from metasrv.model.types import Endpoint
from metasrv.protocol import methods as m
from metasrv.protocol.proto import meta_pb2 as pb

EXPORT_SECONDS_MAX = 30.0
LINES_PER_MESSAGE = 1024
DIFFERENCE_LINES_MAX = 12
_OWN = ('["raft_log",{"NodeId":', '["raft_log",{"Purged":')
"""How the lines begin in which a node tells of itself: its id, and what its own log lacks."""


class NotAtRestError(AssertionError):
    """The nodes did not come to the same applied entry in time."""


async def export_of(endpoint: Endpoint) -> list[str]:
    """A node's export without the lines in which it tells of itself; raises CallFailedError."""
    connection = Connection(str(endpoint), Credentials())
    lines: list[str] = []
    try:
        request = pb.ExportRequest(chunk_size=LINES_PER_MESSAGE)
        async for answer in connection.stream(m.EXPORT_V1, request, EXPORT_SECONDS_MAX):
            lines.extend(answer.message.data)
    finally:
        await connection.close()
    return [line for line in lines if not line.startswith(_OWN)]


async def exports_at_rest(endpoints: Mapping[int, Endpoint], timeout_s: float) -> dict[int, list[str]]:
    """Exports of all nodes at the same applied entry; raises NotAtRestError at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        seen = "a node did not answer"
        try:
            exports = dict(zip(endpoints, await asyncio.gather(*map(export_of, endpoints.values())), strict=True))
            positions = {node_id: applied_line(lines) for node_id, lines in exports.items()}
            if len(set(positions.values())) == 1:
                return exports
            seen = str(positions)
        except (CallFailedError, grpc.aio.AioRpcError) as error:
            seen = str(error)
        if loop.time() > deadline:
            raise NotAtRestError(f"the nodes did not apply the same entries within {timeout_s:g} s: {seen}")
        await asyncio.sleep(0.1)


def applied_line(lines: list[str]) -> str:
    """The line that names a state's last applied entry."""
    return next((line for line in lines if '"LastApplied"' in line), "nothing applied")


def differences(exports: Mapping[int, list[str]]) -> list[str]:
    """How the states of the nodes differ, one text a node; empty when they are equal to the byte."""
    problems = []
    (first_id, first), *others = exports.items()
    for node_id, lines in others:
        if lines != first:
            shown = list(unified_diff(first, lines, f"node {first_id}", f"node {node_id}", lineterm="", n=0))
            text = "\n".join(line[:300] for line in shown[:DIFFERENCE_LINES_MAX])
            problems.append(f"the states of nodes {first_id} and {node_id} differ at the same applied entry:\n{text}")
    return problems


def records_of(lines: list[str]) -> dict[str, tuple[int, bytes]]:
    """Sequence number and value of each record of an export, by key."""
    records = {}
    for line in lines:
        entry: dict[str, Any] = json.loads(line)[1]
        record = entry.get("GenericKV")
        if record is not None:
            records[record["key"]] = (int(record["value"]["seq"]), bytes(record["value"]["data"]))
    return records
