"""The figures of a run of many histories."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from verification.simulation.history import Outcome


@dataclass(slots=True)
class Figures:
    """Sums over histories."""

    histories: int = 0
    failed: int = 0
    simulated_seconds: float = 0.0
    node_seconds: float = 0.0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    reads: int = 0
    undecided: int = 0
    events: int = 0
    messages: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.histories += 1
        self.failed += bool(outcome.violations)
        self.simulated_seconds += outcome.seconds
        self.node_seconds += outcome.seconds * outcome.plan.size
        self.acknowledged += outcome.done
        self.unknown += outcome.perhaps
        self.refused += outcome.not_done
        self.reads += outcome.reads
        self.undecided += outcome.undecided
        self.events += outcome.events
        self.messages += outcome.messages
        self.faults += outcome.faults
        self.counts += outcome.counts
        self.sizes[outcome.plan.size] += 1

    def lines(self, elapsed_seconds: float) -> list[str]:
        """The figures as text, one a line."""
        rate = self.histories * 60 / elapsed_seconds if elapsed_seconds else 0.0
        sizes = ", ".join(f"{count} of {size} nodes" for size, count in sorted(self.sizes.items()))
        lines = [
            f"histories            {self.histories:>12,}   ({sizes})",
            f"simulated            {self.simulated_seconds / 3600:>12,.1f}   cluster-hours,"
            f" {self.node_seconds / 3600:,.1f} node-hours",
            f"elapsed              {elapsed_seconds:>12,.0f}   seconds, {rate:,.0f} histories a minute",
            f"acknowledged writes  {self.acknowledged:>12,}",
            f"unknown outcomes     {self.unknown:>12,}",
            f"refused writes       {self.refused:>12,}",
            f"linearizable reads   {self.reads:>12,}",
            f"messages             {self.messages:>12,}",
            f"keys not decided     {self.undecided:>12,}",
            f"faults               {self.faults.total():>12,}",
        ]
        lines += [f"  {kind:<24} {count:>8,}" for kind, count in sorted(self.faults.items())]
        lines.append("what happened")
        lines += [f"  {what:<24} {count:>8,}" for what, count in sorted(self.counts.items())]
        lines.append(f"histories with violations {self.failed:>7,}")
        return lines
