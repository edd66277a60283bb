"""Processor time and memory of a process, from /proc."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024


@dataclass(slots=True)
class UsageMeter:
    """Processor use of a process since the meter was made."""

    pid: int
    started_at: float
    seconds_at_start: float

    @classmethod
    def start(cls, pid: int) -> UsageMeter:
        return cls(pid, time.monotonic(), processor_seconds(pid))

    def percent_of_a_core(self) -> float:
        elapsed = time.monotonic() - self.started_at
        return 100 * (processor_seconds(self.pid) - self.seconds_at_start) / elapsed


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB
