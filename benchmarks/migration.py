"""Move a cluster of many keys under load, and prove that none is lost: `python -m benchmarks.migration --keys 1000000`.

Values of 256 random bytes. Writers of the source never stop by themselves: its read-only switch holds them off for the
cut-over. Then both clusters are exported and compared, line by line, and every write that the source had acknowledged is
looked for in the target. Ends with 1 if anything is missing. Prints what `metactl migrate` says, and how long writers
stood still.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from itertools import zip_longest
from pathlib import Path

from benchmarks.backup import make_export
from metasrv.model.errors import NotDoneError, UnknownOutcomeError, WriteRefusedError
from metasrv.testing.processes import ProcessCluster

_WRITERS = 4
_RECORD = '["state_machine/0",{"GenericKV":'
_PAUSE_SECONDS = 0.02


class Load:
    """Writers of the source; each has keys of its own, half of them among those that were there before."""

    def __init__(self, cluster: ProcessCluster, keys: int) -> None:
        self._cluster = cluster
        self._keys = keys
        self.acknowledged: dict[str, bytes] = {}
        self.writes = 0
        self.refused_since = 0.0
        """When the first write was refused since the last one that was taken; 0 while writes are taken."""

    async def write(self, writer: int) -> None:
        async with self._cluster.client() as client:
            number = writer
            while True:
                number += _WRITERS
                key = f"bench/{number * 7 % self._keys:09d}" if number % 2 else f"load/{number % 5000}"
                value = b"%d" % number
                before = self.acknowledged.pop(key, None)  # open until it is answered
                try:
                    await client.upsert(key, value)
                except WriteRefusedError:
                    if before is not None:
                        self.acknowledged[key] = before
                    self.refused_since = self.refused_since or time.monotonic()
                    await asyncio.sleep(_PAUSE_SECONDS)
                except (NotDoneError, UnknownOutcomeError):
                    continue
                else:
                    self.acknowledged[key] = value
                    self.writes += 1
                    self.refused_since = 0.0


async def metactl(*arguments: object, shown: bool = False) -> None:
    """Run a command; ends the program when it fails."""
    quiet = None if shown else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "metasrv.cli.ctl", *map(str, arguments), stdout=quiet, stderr=quiet
    )
    if (code := await process.wait()) != 0:
        raise SystemExit(f"metactl {arguments[0]} ended with {code}")


async def filled(cluster: ProcessCluster, keys: int) -> None:
    """Start the cluster, each node from the same backup of so many keys."""
    made = cluster.directory / "made"
    await asyncio.to_thread(make_export, made, keys)
    members = [f"{node_id}={node.raft}" for node_id, node in cluster.nodes.items()]
    for node_id, node in cluster.nodes.items():
        restore = ("snapshot", "restore", made, "--raft-dir", node.raft_dir, "--id", node_id)
        await metactl(*restore, "--initial-cluster", *members)
    await asyncio.to_thread(made.unlink)
    await cluster.boot()
    await cluster.wait_for_ready()


async def turn_on(cluster: ProcessCluster, feature: str) -> None:
    admin = next(iter(cluster.nodes.values())).admin
    await metactl("set-feature", "--feature", feature, "--enable", "true", "--admin-api-address", admin)


async def exported(cluster: ProcessCluster, path: Path) -> None:
    grpc = next(iter(cluster.nodes.values())).grpc
    await metactl("export", "--db", path, "--grpc-api-address", grpc)


def compare(source: Path, target: Path, acknowledged: dict[str, bytes]) -> tuple[int, list[str]]:
    """How many keys the source has, and what is not alike, the first lines of it."""
    left = dict(acknowledged)
    count = 0
    problems: list[str] = []
    with source.open(encoding="utf-8") as theirs, target.open(encoding="utf-8") as ours:
        records = ((line for line in file if line.startswith(_RECORD)) for file in (theirs, ours))
        for wanted, found in zip_longest(*records):
            count += wanted is not None
            if wanted != found and len(problems) < 5:
                problems.append(f"the source has {str(wanted)[:120]}, the target {str(found)[:120]}")
            if found is None:
                continue
            body = json.loads(found)[1]["GenericKV"]
            value = left.pop(body["key"], None)
            if value is not None and bytes(body["value"]["data"]) != value:
                problems.append(f"{body['key']} does not have the value that was acknowledged last")
    return count, problems + [f"{key} was acknowledged and is missing" for key in list(left)[:5]]


async def run(keys: int, nodes: int) -> int:
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(ProcessCluster(nodes))
        target = await stack.enter_async_context(ProcessCluster(nodes))
        started = time.monotonic()
        await filled(source, keys)
        await target.boot()
        await turn_on(source, "write-limits")
        await turn_on(target, "migration")
        print(f"{keys:,} keys are there after {time.monotonic() - started:.0f} s", flush=True)
        load = Load(source, keys)
        tasks = [asyncio.create_task(load.write(number)) for number in range(_WRITERS)]
        started = time.monotonic()
        admins, theirs, ours = (
            ",".join(str(getattr(node, name)) for node in cluster.nodes.values())
            for cluster, name in ((source, "admin"), (source, "grpc"), (target, "grpc"))
        )
        between = ("--from", theirs, "--to", ours, "--work-directory", source.directory)
        switch = ("--cut-over", "--from-read-only", "--from-admin-api-address", admins)
        await metactl("migrate", *between, *switch, shown=True)
        print(f"moved in {time.monotonic() - started:.0f} s, while {load.writes:,} writes were acknowledged")
        print(f"writers stood still for {time.monotonic() - load.refused_since:.1f} s before its end")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        files = source.directory / "source.lines", source.directory / "target.lines"
        await exported(source, files[0])
        await exported(target, files[1])
        count, problems = await asyncio.to_thread(compare, *files, load.acknowledged)
    for problem in problems:
        print(problem)
    print(f"{count:,} keys, {len(load.acknowledged):,} of them written meanwhile: {'NOT ' if problems else ''}all alike")
    return 1 if problems else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--nodes", type=int, default=1, help="of each cluster")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.keys, arguments.nodes)))


if __name__ == "__main__":
    main()
