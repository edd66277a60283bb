"""The proof, all the time, that this node's copy of the state is what the log says: its parts, put together.

The node looks through its own file (`scrubber.py`), compares itself with the other members (`copies.py`), and acts on
what it finds (`damage.py`). The simulator composes the same, at a pace of its own. Must not know HTTP. Runs on the node's
event loop.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple

from metasrv.node.copies import COMPARE_SECONDS, CopyComparison
from metasrv.node.damage import CopyHealth, CopyMetrics
from metasrv.node.findings import CopyFindings
from metasrv.node.scrubber import ROUND_PAUSE_SECONDS, Scrubber
from metasrv.process.clock import Clock
from metasrv.process.data_directory import DataDirectory
from metasrv.raft.consensus import RaftConsensus


class ProofPace(NamedTuple):
    """How often a node looks."""

    compare_seconds: float = COMPARE_SECONDS
    """Between two comparisons with the other members."""
    round_pause_seconds: float = ROUND_PAUSE_SECONDS
    """From the end of a look through its own file to the next one."""


class CopyProof:
    """See the module. `findings` is what status and readiness show, and `metrics` is told of each change."""

    def __init__(
        self,
        consensus: RaftConsensus,
        directory: DataDirectory,
        findings: CopyFindings,
        metrics: CopyMetrics,
        clock: Clock,
        pace: ProofPace = ProofPace(),  # noqa: B008 - a value that cannot change
    ) -> None:
        self.health = CopyHealth(consensus, directory, findings, metrics)
        self.scrubber = Scrubber(directory.state_path, self.health, clock, pace.round_pause_seconds)
        self.comparison = CopyComparison(consensus, self.health, clock, pace.compare_seconds)

    def works(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What has to run for as long as the node does, by name; each runs until it is cancelled."""
        return {
            "copy-hand-over": self.health.run(),
            "copy-scrub": self.scrubber.run(),
            "copy-compare": self.comparison.run(),
        }
