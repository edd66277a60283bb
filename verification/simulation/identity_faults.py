"""Faults of identity: a second process asks to join under the id of a member that runs."""

from __future__ import annotations

import asyncio
import random

from metasrv.consensus import JoinRequest
from metasrv.model.errors import RequestError
from metasrv.model.types import Node
from verification.simulation.machine import Machine, Process
from verification.simulation.nemesis import Inflict, Nemesis

_TIMEOUT_MS = 200
_HEARD_SECONDS = 0.1
"""A holder that answered the leader so recently must not lose its id to anybody within the request's time."""


async def id_reuse(nemesis: Nemesis, source: random.Random) -> None:
    """Ask again and again, with a new data directory, for the id of a follower that the leader hears."""
    if nemesis.changing_members or nemesis.lost:
        return
    nemesis.changing_members = True
    try:
        for _ in range(source.randint(1, 4)):
            await _ask_under_id(nemesis, nemesis.follower(source), f"{source.getrandbits(128):032x}")
            await asyncio.sleep(0.1 * source.random())
    finally:
        nemesis.changing_members = False


async def _ask_under_id(nemesis: Nemesis, victim: Machine, incarnation: str) -> None:
    cluster, node_id = nemesis.cluster, victim.node_id
    leader = cluster.leader()
    if leader is None or leader.machine is victim:
        return
    request = JoinRequest(Node(node_id, victim.endpoint, "", None), incarnation, True)

    async def call(process: Process) -> None:
        engine = process.consensus.replica.engine
        heard_at = engine.last_response(node_id)
        if node_id not in engine.membership() or cluster.clock.monotonic() - heard_at > _HEARD_SECONDS:
            return
        cluster.witness.count("ids asked for while in use")
        try:
            await process.consensus.join(request, _TIMEOUT_MS)
        except RequestError as error:
            cluster.note(f"join under the id of node {node_id}: {type(error).__name__}: {error}")
        member = engine.membership().member(node_id)
        if member is not None and member.incarnation == incarnation:
            cluster.witness.violation(f"node {node_id} was put out by another directory although it was heard")

    try:
        await cluster.ask(leader.machine.node_id, call, _TIMEOUT_MS / 1000 + 0.5)
    except RequestError as error:
        cluster.note(f"join under the id of node {node_id} was not answered: {type(error).__name__}")


IDENTITY_FAULTS: dict[str, Inflict] = {"id reuse": id_reuse}
