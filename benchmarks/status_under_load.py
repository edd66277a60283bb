"""The status page while 64 clients write: is each answer one instant, what does it cost, does it slow writes down?

Three nodes; the leader is asked 200 times a second while h2load writes at it, and once more is written without being
asked. Processor time of an answer: what the leader's process uses on top of being idle while it is asked 200 times a
second and nobody writes, a share of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import programs
from benchmarks.load import LoadError, drive
from benchmarks.process_usage import UsageMeter
from benchmarks.side_by_side import CALIBRATION_REQUESTS, leader_target
from metasrv.testing.processes import ProcessCluster

CLIENTS = 64
ASKED_PER_SECOND = 200


class Asker:
    """Asks one node for its status at a steady rate and checks each answer."""

    def __init__(self, admin_url: str) -> None:
        self._url = f"{admin_url}/v1/cluster/status"
        self.seconds: list[float] = []
        self.torn: list[dict[str, Any]] = []

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask on time, whether or not earlier answers have come."""
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http, asyncio.TaskGroup() as asking:
            due = time.monotonic()
            while not stopping.is_set():
                asking.create_task(self._ask(http))
                due += 1 / ASKED_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, http: httpx.AsyncClient) -> None:
        started = time.monotonic()
        status = (await http.get(self._url)).json()
        self.seconds.append(time.monotonic() - started)
        if not is_one_instant(status):
            self.torn.append(status)


def is_one_instant(status: dict[str, Any]) -> bool:
    """What can not be true of two moments mixed."""
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
    async with ProcessCluster(3) as cluster:
        await cluster.boot()
        leader = await cluster.wait_for_leader()
        process = cluster.nodes[leader].process
        if process is None:
            raise LoadError("the leader does not run")
        url = f"http://{cluster.nodes[leader].admin}"
        idle_percent, _ = await asked_while(url, process.pid, seconds, asked=False)
        asked_percent, quiet = await asked_while(url, process.pid, seconds, asked=True)
        cost_ms = (asked_percent - idle_percent) / 100 * 1000 * seconds / len(quiet.seconds)
        target = await leader_target(cluster, leader)
        first = await asyncio.to_thread(drive, target, CLIENTS, CALIBRATION_REQUESTS)
        requests = int(first.per_second * seconds)
        rates: dict[bool, list[float]] = {False: [], True: []}
        busy: list[Asker] = []
        for asked in (False, True, False, True):
            asker, stopping = Asker(url), asyncio.Event()
            asking = asyncio.create_task(asker.run(stopping)) if asked else None
            rates[asked].append((await asyncio.to_thread(drive, target, CLIENTS, requests)).per_second)
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


async def asked_while(url: str, pid: int, seconds: float, *, asked: bool) -> tuple[float, Asker]:
    """Percent of a core the process uses for so long, asked or left alone."""
    asker, stopping = Asker(url), asyncio.Event()
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
