"""What a running node takes (bytes of each kind of file, descriptors, threads, memory) and whether any of it grows.

Reads /proc and the node's directory from outside; knows nothing of what the node does. Pure but for that reading.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metasrv.model.limits import MIB, STATE_LOG_SIZE_BYTES_TARGET
from metasrv.raft.state_log import URGENT_FACTOR

DESCRIPTORS, THREADS, MEMORY = "descriptors", "threads", "memory"
STATE_LOG = "state.db-wal"

Footprint = Mapping[str, int]
"""Counts, and bytes, by what they are of."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much of one thing there was, and whether that is too much."""

    what: str
    earlier: int
    """The most in the middle third of the samples, when everything has warmed up."""
    later: int
    """The most in the last third."""
    largest: int
    problem: str
    """Empty when it does not grow."""


def footprint_of(process_id: int, directory: Path) -> dict[str, int]:
    """What the process takes at this moment, and the files below its directory, snapshots added up."""
    found = {
        DESCRIPTORS: len(os.listdir(f"/proc/{process_id}/fd")),
        THREADS: len(os.listdir(f"/proc/{process_id}/task")),
        MEMORY: _resident_bytes(process_id),
    }
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                name = "snapshots" if path.parent.name == "snapshot" else path.name
                found[name] = found.get(name, 0) + path.stat().st_size
        except FileNotFoundError:
            continue  # removed since it was listed
    return found


def _resident_bytes(process_id: int) -> int:
    with open(f"/proc/{process_id}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growths(samples: Sequence[Footprint], limits: Mapping[str, int]) -> list[Growth]:
    """The verdict on each thing in the samples, taken at equal intervals under a steady load on a bounded set of keys.

    What grows forever is in the last third larger than in the second by more than what chance does. `limits` are
    absolute bounds for some.
    """
    if len(samples) < 6:
        raise ValueError(f"{len(samples)} samples tell nothing")
    third = len(samples) // 3
    verdicts = []
    for what in sorted({name for sample in samples for name in sample}):
        values = [sample.get(what, 0) for sample in samples]
        earlier, later, largest = max(values[third:-third]), max(values[-third:]), max(values)
        problem = ""
        if later > earlier + allowance(what, earlier):
            problem = "grows"
        elif what in limits and largest > limits[what]:
            problem = f"is past its limit of {limits[what]}"
        verdicts.append(Growth(what, earlier, later, largest, problem))
    return verdicts


def allowance(what: str, earlier: int) -> int:
    """By how much a maximum may differ from an earlier one of the same length by chance."""
    if what == DESCRIPTORS:
        return 8 + earlier // 4
    if what == THREADS:
        return 2
    if what == STATE_LOG:
        return URGENT_FACTOR * STATE_LOG_SIZE_BYTES_TARGET  # beside readers, passes wait until it is so large
    if what == MEMORY:
        return 16 * MIB + earlier // 10
    return 4 * MIB + earlier // 4


def table(node_id: int, verdicts: Sequence[Growth]) -> list[str]:
    """For people."""
    lines = [f"node {node_id:<22} {'earlier':>14} {'later':>14} {'largest':>14}"]
    lines += [
        f"  {one.what:<25} {one.earlier:>14,} {one.later:>14,} {one.largest:>14,} {one.problem}" for one in verdicts
    ]
    return lines
