"""Clients that keep a cluster busy until they are stopped, and check every answer: `chaos` in docker-compose.yml.

    python -m metasrv.testing.soak meta1:9191 meta2:9192 meta3:9193

Works in rounds, because a verdict needs an end. After each one everything acknowledged must be stored once and every
history must be linearizable; then the round's keys are deleted. SIGTERM ends it after the present round. Exit code 1
when a promise was broken, 2 when no verdict could be had. METASRV_GRPC_PASSWORD is the password of the cluster, if any.
Knows a cluster's client addresses only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from metasrv.client import AsyncClient, Transaction
from metasrv.model.errors import RequestError
from metasrv.model.types import Endpoint
from metasrv.testing.store import ClientStore, PinnedStore, Store
from metasrv.testing.workload import LOG_PREFIX, Record, Workload, verdict

TIMEOUT_MS = 2_000
"""For one call: a client that asks a hung node gives it up after this."""
PINNED_EVERY = 4
"""Every fourth client asks one node only, whatever that node is: the others follow the leader."""
VERDICT_SECONDS = 120.0
"""How long the cluster may take to answer for a round that is over."""
PROBLEMS_SHOWN_MAX = 10


class Soak:
    """Rounds of load, one after the other."""

    def __init__(self, endpoints: Sequence[str], password: str, clients: int, pause_ms: int) -> None:
        self._endpoints = endpoints
        self._password = password
        self._clients = clients
        self._pause_s = pause_ms / 1000
        self._run = secrets.token_hex(4)
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rounds = 0
        self.operations = 0
        self.violations = 0

    def stop(self) -> None:
        """End after the present round."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    async def run(self, round_seconds: float, rounds: int) -> None:
        """`rounds` of them, or until `stop` when that is 0. Raises AssertionError when no verdict can be had."""
        while not self._stopping.done() and (rounds == 0 or self.rounds < rounds):
            self.rounds += 1
            name = f"{self._run}-{self.rounds}-"
            started = time.monotonic()
            record = await self._load(name, round_seconds)
            gap_s = record.unavailable_seconds(started, time.monotonic())
            problems = await self._judge(record, name)
            self.operations += record.total
            self.violations += len(problems)
            say(
                f"round {self.rounds}: {record.total} operations, {record.unknown} unknown, {record.refused} refused, "
                f"{gap_s:.2f} s without a write: {f'{len(problems)} VIOLATIONS' if problems else 'ok'}"
            )
            for problem in problems[:PROBLEMS_SHOWN_MAX]:
                say(problem)
        say(f"{self.rounds} rounds, {self.operations} operations, {self.violations} violations")

    async def _load(self, name: str, seconds: float) -> Record:
        async with AsyncExitStack() as stack:
            stores = [await self._store(stack, number) for number in range(self._clients)]
            async with Workload(stores, seed=self.rounds, pause_s=self._pause_s, name=name) as workload:
                await asyncio.wait({self._stopping}, timeout=seconds)
            return workload.record

    async def _store(self, stack: AsyncExitStack, number: int) -> Store:
        if number % PINNED_EVERY == PINNED_EVERY - 1:
            endpoint = Endpoint.parse(self._endpoints[number // PINNED_EVERY % len(self._endpoints)])
            return await stack.enter_async_context(PinnedStore(endpoint, TIMEOUT_MS / 1000, self._password))
        return ClientStore(await stack.enter_async_context(self._client()))

    def _client(self) -> AsyncClient:
        return AsyncClient(self._endpoints, password=self._password, timeout_ms=TIMEOUT_MS)

    async def _judge(self, record: Record, name: str) -> list[str]:
        """The verdict on a round; its keys are gone afterwards."""
        prefixes = [f"{kind}/{name}" for kind in ("log", "register", "counter", "group", "lease")]
        deadline = time.monotonic() + VERDICT_SECONDS
        async with self._client() as client:
            while True:
                try:
                    stored = {key: item.data for key, item in await client.list_prefix(f"{LOG_PREFIX}{name}")}
                    problems = verdict(record, stored)
                    clean = Transaction()
                    for prefix in (*prefixes, f"sequence-of/{LOG_PREFIX}{name}"):
                        clean.delete_by_prefix(prefix)
                    await client.transaction(clean)
                    return problems
                except RequestError as error:
                    if time.monotonic() > deadline:
                        raise AssertionError(f"no verdict within {VERDICT_SECONDS:g} s: {error}") from error
                    await asyncio.sleep(0.5)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m metasrv.testing.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("endpoints", nargs="+", metavar="host:port", help="gRPC addresses of the nodes")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--round-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=0, help="0: until stopped")
    parser.add_argument("--pause-ms", type=int, default=20, help="rest of each client between its operations")
    options = parser.parse_args(arguments)
    password = os.environ.get("METASRV_GRPC_PASSWORD", "")
    return asyncio.run(_main(options, password))


async def _main(options: argparse.Namespace, password: str) -> int:
    soak = Soak(options.endpoints, password, options.clients, options.pause_ms)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, soak.stop)
    try:
        await soak.run(options.round_seconds, options.rounds)
    except AssertionError as error:
        say(str(error))
        return 2
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
