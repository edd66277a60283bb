"""Defects of the proof that each copy of the state is what the log says."""

from __future__ import annotations

from metasrv.model.types import SeqV
from metasrv.node import copies, scrubber
from metasrv.node.damage import CopyHealth
from metasrv.process.clock import Clock
from metasrv.raft.state_hashes import StateHashes
from metasrv.state.digest import RangeSums
from metasrv.state.scrubbing import Slice
from metasrv.state.store import Store
from verification.mutants.patching import Mutant, Replacement


def _digest_ignores_deletes() -> list[Replacement]:
    real = Store.delete

    def delete(self: Store, key: str, record: SeqV) -> int:
        real(self, key, record)
        return 0

    return [(Store, "delete", delete)]


def _alarm_never_raised() -> list[Replacement]:
    return [(CopyHealth, "damaged", lambda _self, _sentence: None)]


def _checksums_not_looked_at() -> list[Replacement]:
    def check_slice(_path: str, _after: str | None, _seconds_max: float, _clock: Clock) -> Slice:
        return Slice(None, 0, 0.0)

    return [(scrubber, "check_slice", check_slice)]


def _rows_not_added_up() -> list[Replacement]:
    return [(scrubber, "check_sums", lambda _path: RangeSums(0, 0, 0))]


def _nothing_compared() -> list[Replacement]:
    return [(copies, "judge", lambda _own_id, _copies, _membership: [])]


def _hashes_of_different_entries_compared() -> list[Replacement]:
    def known(self: StateHashes) -> dict[int, bytes]:
        return {self._machine.last_applied.index // 4 * 4: self._machine.state_hash()}

    return [(StateHashes, "known", known)]


def _damaged_copy_serves_on() -> list[Replacement]:
    real = CopyHealth._decide

    def decide(self: CopyHealth) -> None:
        real(self)
        self.findings.serves = True
        self._consensus.set_serving(True)

    return [(CopyHealth, "_decide", decide)]


COPY_MUTANTS = (
    Mutant(
        "digest ignores deletes",
        "records that a client deletes stay in the digest of the state",
        _digest_ignores_deletes,
    ),
    Mutant(
        "alarm never raised",
        "a node that finds its own copy damaged says nothing",
        _alarm_never_raised,
        ("flipped byte", "lost row"),
    ),
    Mutant(
        "checksums not looked at",
        "the look through the state file compares no record with its checksum",
        _checksums_not_looked_at,
        ("flipped byte",),
    ),
    Mutant(
        "rows not added up",
        "the look through the state file does not add up its rows",
        _rows_not_added_up,
        ("lost row",),
    ),
    Mutant("copies not compared", "nodes exchange hashes of their states and compare none", _nothing_compared),
    Mutant(
        "hashes of different entries compared",
        "a node says its present hash as that of an earlier entry",
        _hashes_of_different_entries_compared,
    ),
    Mutant(
        "damaged copy serves on",
        "a node that says that its copy is damaged goes on answering from it",
        _damaged_copy_serves_on,
        ("flipped byte", "lost row"),
    ),
)
