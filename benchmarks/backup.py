"""How long a backup and a restore take, and how much memory: `python -m benchmarks.backup --keys 200000`.

One node with values of 256 random bytes. Prints seconds, processor seconds and the largest memory of each command, and of
the node during the backup.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from metasrv.backup.archive import ArchiveWriter
from metasrv.grpc_api.export_lines import ArchiveHead
from metasrv.testing.processes import ProcessCluster

VALUE_SIZE_BYTES = 256
_HEAD_LINES = (
    '["header",{"DataHeader":{"key":"header","value":{"version":"V004"}}}]',
    '["raft_log",{"NodeId":1}]',
    '["state_machine/0",{"StateMachineMeta":{"key":"LastApplied","value":{"LogId":'
    '{"leader_id":{"term":1,"node_id":1},"index":1000}}}}]',
)


def make_export(path: Path, keys: int) -> None:
    """An export as upstream's and `metactl export` write it, with values as arrays of numbers."""
    with path.open("wb") as file:
        writer = ArchiveWriter(file)
        writer.write([ArchiveHead("benchmark", 1, 0, True, 1000, 1, ()).line(), *_HEAD_LINES])
        for number in range(keys):
            key = f"bench/{number:09d}"
            value = ",".join(map(str, os.urandom(VALUE_SIZE_BYTES)))
            record = f'{{"seq":{number + 1},"meta":{{"proposed_at_ms":1700000000000}},"data":[{value}]}}'
            writer.write([f'["state_machine/0",{{"GenericKV":{{"key":"{key}","value":{record}}}}}]'])
        writer.finish()


def measured(name: str, *arguments: object) -> None:
    """Run metactl and print what it took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "metasrv.cli.ctl", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    seconds, processor = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    print(f"{name}: {seconds:.1f} s, {processor:.1f} s of processor, {usage.ru_maxrss / 1024:.0f} MiB, code {code}")


def memory_mib(process_id: int, field: str) -> float:
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


async def run(keys: int) -> None:
    async with ProcessCluster(1) as cluster:
        node = cluster.nodes[1]
        made, archive = cluster.directory / "made", cluster.directory / "archive"
        make_export(made, keys)
        members = ("--initial-cluster", f"1={node.raft}")
        measured("restore of values as numbers", "snapshot", "restore", made, "--raft-dir", node.raft_dir, *members)
        made.unlink()
        await cluster.boot()
        process = node.process
        assert process is not None
        before = memory_mib(process.pid, "VmRSS")
        address = ("--grpc-api-address", node.grpc)
        await asyncio.to_thread(measured, "snapshot save", "snapshot", "save", archive, *address)
        print(f"node: {before:.0f} MiB before, {memory_mib(process.pid, 'VmHWM'):.0f} MiB at most")
        print(f"archive: {archive.stat().st_size / 1024 / 1024:.0f} MiB")
        await cluster.stop(1)
        measured("snapshot inspect", "snapshot", "inspect", archive)
        measured("snapshot restore", "snapshot", "restore", archive, "--raft-dir", cluster.directory / "new", *members)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000)
    asyncio.run(run(parser.parse_args().keys))


if __name__ == "__main__":
    main()
