"""The status page while 64 clients write: is each answer one instant, what does it cost, does it slow writes down?

Three nodes; the leader is asked 200 times a second while h2load writes to it, in turns with writing alone. Processor
time per answer: what the leader's process uses when it is asked 200 times a second and nobody writes, minus what it uses
when idle, divided by the number of answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import programs
from benchmarks.compared.contender import target
from benchmarks.compared.loads import CALIBRATION_REQUESTS, VALUE
from benchmarks.compared.metasrv_cluster import MetasrvCluster
from benchmarks.load import KEY, drive
from benchmarks.process_usage import UsageMeter
from metasrv.model.types import Endpoint

CLIENTS = 64
ASKED_PER_SECOND = 200
CONNECTIONS = 8


class Asker:
    """Asks one node for its status at a steady rate over a few connections, and checks each answer.

    Plain sockets: a client library would use more of the two cores than the answers do.
    """

    def __init__(self, admin: Endpoint) -> None:
        self._admin = admin
        self._request = f"GET /v1/cluster/status HTTP/1.1\r\nHost: {admin}\r\n\r\n".encode()
        self.seconds: list[float] = []
        self.torn: list[dict[str, Any]] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask until `stopping`; a connection whose answers are late asks less often."""
        async with asyncio.TaskGroup() as asking:
            for number in range(CONNECTIONS):
                asking.create_task(self._ask(stopping, number / ASKED_PER_SECOND))

    async def _ask(self, stopping: asyncio.Event, offset_seconds: float) -> None:
        reader, writer = await asyncio.open_connection(self._admin.addr, self._admin.port)
        due = time.monotonic() + offset_seconds
        while not stopping.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += CONNECTIONS / ASKED_PER_SECOND
            started = time.monotonic()
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size_bytes = int(head.partition(b"content-length: ")[2].split(b"\r", 1)[0])
            status = json.loads(await reader.readexactly(size_bytes))
            self.seconds.append(time.monotonic() - started)
            if not is_one_instant(status):
                self.torn.append(status)
        writer.close()


def is_one_instant(status: dict[str, Any]) -> bool:
    """Whether the answer holds what a mixture of two moments would break."""
    leader = status["leader"]
    leads = leader is not None and leader["name"] == str(status["id"])
    return (
        status["last_applied"]["index"] <= status["last_log_index"]
        and status["is_leader"] == (status["state"] == "Leader")
        and (leads or not status["is_leader"])
    )


async def main() -> int:
    parser = argparse.ArgumentParser(prog="status_under_load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    seconds = parser.parse_args().seconds
    programs.require()
    async with MetasrvCluster(3) as contender:
        leader = await contender.leader()
        admin, pid = contender.cluster.nodes[leader].admin, contender.pid(leader)
        idle_percent, _ = await asked_while(admin, pid, seconds, asked=False)
        asked_percent, quiet = await asked_while(admin, pid, seconds, asked=True)
        cost_ms = (asked_percent - idle_percent) / 100 * 1000 * seconds / len(quiet.seconds)
        write = target(contender, leader, contender.put(KEY, VALUE))
        first = await asyncio.to_thread(drive, write, CLIENTS, CALIBRATION_REQUESTS)
        requests = int(first.per_second * seconds)
        rates: dict[bool, list[float]] = {False: [], True: []}
        busy: list[Asker] = []
        for asked in (False, True, False, True):
            asker, stopping = Asker(admin), asyncio.Event()
            asking = asyncio.create_task(asker.run(stopping)) if asked else None
            rates[asked].append((await asyncio.to_thread(drive, write, CLIENTS, requests)).per_second)
            stopping.set()
            if asking is not None:
                await asking
                busy.append(asker)
    answers = [each for asker in (quiet, *busy) for each in asker.seconds]
    torn = sum(len(asker.torn) for asker in (quiet, *busy))
    print(f"answers {len(answers)}, not of one instant {torn}")
    print(f"processor time of an answer {cost_ms:.2f} ms, latency without load {_quantiles(quiet.seconds)}")
    print(f"latency while {CLIENTS} clients write {_quantiles([s for asker in busy for s in asker.seconds])}")
    without, with_ = statistics.mean(rates[False]), statistics.mean(rates[True])
    print(f"writes a second: {without:.0f} without, {with_:.0f} while asked {ASKED_PER_SECOND} times a second")
    return 1 if torn else 0


async def asked_while(admin: Endpoint, pid: int, seconds: float, *, asked: bool) -> tuple[float, Asker]:
    """Percent of a core that the process uses during `seconds`, asked or left alone."""
    asker, stopping = Asker(admin), asyncio.Event()
    meter = UsageMeter.start(pid)
    asking = asyncio.create_task(asker.run(stopping)) if asked else None
    await asyncio.sleep(seconds)
    percent = meter.percent_of_a_core()
    stopping.set()
    if asking is not None:
        await asking
    return percent, asker


def _quantiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms"


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
