"""metactl at the end of a pipe, on a full disk, on an ASCII locale and on a terminal, against a node with 5,000 keys."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster

KEYS = 5_000
HOSTILE = "esc\x1b[2Jü\n/next"
HAS_FULL = os.path.exists("/dev/full")


def run(script: str, address: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of shell in which `metactl` and `$ADDRESS` work; its exit code is metactl's."""
    prelude = f'set -o pipefail; metactl() {{ "{sys.executable}" -m metasrv.cli.ctl "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", prelude + script],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "ADDRESS": address, **environment},
    )


def on_a_terminal(arguments: list[str], **environment: str) -> bytes:
    """What a terminal gets from metactl."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "metasrv.cli.ctl", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={**os.environ, **environment},
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the last writer has gone
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        assert process.wait(timeout=30) == 0, shown
    return shown


@pytest.fixture
async def filled(start_cluster: StartCluster) -> ProcessCluster:
    """One node with the keys, and a snapshot of them."""
    cluster: ProcessCluster = start_cluster(1)
    await cluster.boot()
    async with cluster.client() as client:
        for first in range(0, KEYS, 100):
            await asyncio.gather(*(client.upsert(f"key/{number:05}", b"v") for number in range(first, first + 100)))
        await client.upsert(HOSTILE, b"v")
    assert (await cluster.admin(1, "/v1/ctrl/trigger_snapshot"))[0] == 200
    await cluster.wait_until(lambda: any(cluster.nodes[1].raft_dir.rglob("*.snap")), "a snapshot file")
    return cluster


async def test_a_reader_that_has_enough_and_a_full_disk_end_an_export_without_a_traceback(filled: ProcessCluster) -> None:
    address = str(filled.nodes[1].grpc)
    begun = f"export from the node at {address}\n".encode()
    for _ in range(3):
        headed = await asyncio.to_thread(run, "metactl export --grpc-api-address $ADDRESS | head -n 1", address)
        assert (headed.returncode, headed.stdout.count(b"\n"), headed.stderr) == (0, 1, begun)
    piped = await asyncio.to_thread(
        run, "metactl export --grpc-api-address $ADDRESS --db /dev/stdout | wc -l", address, PYTHONIOENCODING="ascii"
    )
    assert piped.returncode == 0, piped.stderr
    assert int(piped.stdout) > KEYS
    if HAS_FULL:
        full = await asyncio.to_thread(run, "metactl export --grpc-api-address $ADDRESS >/dev/full", address)
        text = b"Error: standard output cannot be written: No space left on device\n"
        assert (full.returncode, full.stderr) == (1, begun + text)


async def test_keys_reach_a_pipe_as_they_are_and_a_terminal_readable(filled: ProcessCluster) -> None:
    address = str(filled.nodes[1].grpc)
    command = "metactl keys-layout --grpc-api-address $ADDRESS"
    raw = await asyncio.to_thread(run, command, address, PYTHONIOENCODING="ascii")
    expected = f"{HOSTILE.rpartition('/')[0]} 1\nkey {KEYS}\n {KEYS + 1}\n"
    assert raw.stdout.decode() == expected, raw.stderr
    arguments = ["keys-layout", "--grpc-api-address", address]
    for encoding, letter in (("utf-8", "ü"), ("ascii", "\\xfc")):
        shown = await asyncio.to_thread(on_a_terminal, arguments, PYTHONIOENCODING=encoding)
        assert shown.decode().splitlines() == [f"esc\\x1b[2J{letter}\\n 1", f"key {KEYS}", f" {KEYS + 1}"]


async def test_a_key_that_is_not_text_is_refused_with_a_sentence(filled: ProcessCluster) -> None:
    done = await asyncio.to_thread(
        run, "metactl get --key $'\\xff' --grpc-api-address $ADDRESS", str(filled.nodes[1].grpc)
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: ")
    assert b"Traceback" not in done.stderr
