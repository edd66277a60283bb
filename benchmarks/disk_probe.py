"""How long the disk takes to sync 4 kB, again and again: what of a write's latency is the machine's own share.

Overwrites blocks of a file that has its full length already and calls fdatasync, as write-ahead logs do. Runs in a
process of its own, so that no event loop has a share in what it measures. Says `ready`, waits for a line, probes for
`--seconds`, then prints every duration in microseconds on one line.

    benchmarks/disk_probe.py DIRECTORY --seconds 8
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence

BLOCK_SIZE_BYTES = 4_096
BLOCKS = 256
PAUSE_SECONDS = 0.01


def probe(descriptor: int, seconds: float, pause_seconds: float) -> list[float]:
    """Seconds that each write with its sync took."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        os.pwrite(descriptor, os.urandom(BLOCK_SIZE_BYTES), len(took) % BLOCKS * BLOCK_SIZE_BYTES)
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - started)
        time.sleep(pause_seconds)
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="disk_probe", description=__doc__)
    parser.add_argument("directory", help="on the disk in question")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryFile(dir=options.directory) as file:
        file.write(bytes(BLOCK_SIZE_BYTES * BLOCKS))
        file.flush()
        os.fsync(file.fileno())
        print("ready", flush=True)
        sys.stdin.readline()
        took = probe(file.fileno(), options.seconds, PAUSE_SECONDS)
    print(" ".join(f"{seconds * 1_000_000:.0f}" for seconds in took))
    return 0


if __name__ == "__main__":
    sys.exit(main())
