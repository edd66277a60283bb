"""Every program of `examples/` runs against three nodes, prints what it shows, and leaves no session behind."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from metasrv.testing.processes import ProcessCluster
from tests.support.paths import ROOT

FOLDER = ROOT / "examples"
SECONDS_MAX = 60.0
PRINTED = {
    "quick_start.py": """
        colour is green
        first swap: True
        same swap again: False
        quick-start/colour = blue
        quick-start/hint = gone in ten seconds""",
    "quick_start_async.py": """
        both written: True
        left b'L' right b'R'""",
    "watch_a_prefix.py": """
        now: watched/a = 1
        the view is complete: ['watched/a']
        now: watched/b = 2
        deleted: watched/a
        now: watched/end =""",
    "configuration_watcher.py": """
        {'greeting': 'hello', 'workers': '2'}
        {'greeting': 'good morning', 'workers': '2'}
        {'greeting': 'good morning', 'workers': '8'}
        {'greeting': 'hello', 'workers': '8'}""",
    "lock_with_fencing.py": """
        the holder writes: True
        the session lives: True
        a former holder writes: False
        tokens grow: True""",
    "lock_with_fencing_async.py": """
        added one: True
        added one: True
        added one: True
        total: 3""",
    "work_queue.py": """
        waiting: 5
        waiting: 0
        thumbnails/done/picture-0
        thumbnails/done/picture-1
        thumbnails/done/picture-2
        thumbnails/done/picture-3
        thumbnails/done/picture-urgent""",
    "leader_election.py": """
        a deposed leader's write is taken: False
        leader: host-1
        leader: host-1, ready
        leader: host-2
        the leader's write is taken: True""",
}
"""Lines that each one prints; those of the election, whose observer is another task, in alphabetical order."""


async def run(name: str, endpoints: list[str]) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(FOLDER / name), *endpoints),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::ResourceWarning", "PYTHONASYNCIODEBUG": ""},
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    lines = [line.strip() for line in output.decode().splitlines()]
    return sorted(lines) if name == "leader_election.py" else lines


async def test_every_example_does_what_it_shows(cluster: ProcessCluster) -> None:
    endpoints = [str(node.grpc) for node in cluster.nodes.values()]
    names = sorted(PRINTED)
    results = await asyncio.gather(*(run(name, endpoints) for name in names))
    for name, lines in zip(names, results, strict=True):
        expected = [line.strip() for line in PRINTED[name].splitlines() if line]
        assert lines == expected, name
    async with cluster.client() as client:
        assert await client.list_prefix("sessions/") == []


def test_every_example_is_tried_and_listed() -> None:
    names = {path.name for path in FOLDER.glob("*.py")}
    assert names == set(PRINTED)
    listed = set(re.findall(r"\]\((\w+\.py)\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert listed == names
    clients = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
    assert {name for name in names if f"examples/{name}" not in clients} == set()
