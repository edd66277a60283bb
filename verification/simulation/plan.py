"""The plan of a seed: cluster, configuration, load and faults of one history.

A plan is a value that can be shortened (`shrink.py`) and run again. Each part is drawn from its own random source, so
that a shorter plan leaves the rest unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from verification.simulation.address_faults import ADDRESS_FAULTS
from verification.simulation.clock_faults import CLOCK_FAULTS
from verification.simulation.copy_faults import COPY_FAULTS
from verification.simulation.disk_faults import DISK_FAULTS
from verification.simulation.identity_faults import IDENTITY_FAULTS
from verification.simulation.limit_faults import LIMIT_FAULTS
from verification.simulation.machine import Tuning
from verification.simulation.membership_faults import MEMBERSHIP_FAULTS
from verification.simulation.nemesis import Inflict, PlannedFault
from verification.simulation.network_faults import NETWORK_FAULTS
from verification.simulation.overtaking_faults import OVERTAKING_FAULTS
from verification.simulation.process_faults import PROCESS_FAULTS
from verification.simulation.security import SECURITIES
from verification.simulation.stall_faults import STALL_FAULTS, STALL_SECONDS
from verification.simulation.wire_faults import WIRE_FAULTS
from verification.simulation.world import Wire

FAULTS: dict[str, Inflict] = {
    **PROCESS_FAULTS,
    **NETWORK_FAULTS,
    **DISK_FAULTS,
    **MEMBERSHIP_FAULTS,
    **OVERTAKING_FAULTS,
    **WIRE_FAULTS,
    **IDENTITY_FAULTS,
    **STALL_FAULTS,
    **ADDRESS_FAULTS,
    **COPY_FAULTS,
    **LIMIT_FAULTS,
    **CLOCK_FAULTS,
}

FORMATION_SHARE = 0.03
"""Share of histories that begin with empty disks; the others begin with a cluster that is formed already."""
LONG_SHARE = 0.02
"""Share of histories that last several seconds and have many faults."""
_DRAWN_APART = ("answers that lag", *WIRE_FAULTS)
"""Kinds added later. They are drawn from a source of their own, so that the other faults of a seed stay the same."""
_BUFFERS = ((256, 512), (4_096, 16_384), (1_048_576, None))
"""Bytes of a connection that the systems hold, and bytes that may wait besides; small ones make connections pause."""
_APART_FROM = 100
"""The number of the first of these faults in a plan."""
_IDENTITY_SHARE = 0.15
"""Share of histories with faults of identity, which are drawn apart from all others."""
_IDENTITY_FROM = 200
_STALL_SHARE = 0.1
"""Share of histories with a disk that stalls, which are drawn apart as well."""
_STALL_FROM = 300
_LONG_FAULTS = {"deaf leader": 1.8, **dict.fromkeys(STALL_FAULTS, max(STALL_SECONDS) + 0.3)}
"""Seconds that a history goes on after such a fault at least."""
_ADDRESS_SHARE = 0.15
"""Share of histories in which nodes move, drawn apart as well."""
_ADDRESS_FROM = 300
_COPY_SHARE = 0.05
"""Share of histories in which a copy of the state is harmed, drawn apart as well."""
_COPY_FROM = 400
_LIMIT_SHARE = 0.1
"""Share of histories in which an operator makes the cluster read-only, or bounds its data, drawn apart as well."""
_LIMIT_FROM = 500
_CLOCK_SHARE = 0.05
"""Share of histories in which a node leads after a snapshot with times that have not come yet, drawn apart as well."""
_CLOCK_FROM = 600


@dataclass(frozen=True, slots=True)
class Plan:
    """One history to run."""

    seed: int
    size: int
    forms: bool
    """Whether the cluster is formed under load and faults."""
    tuning: Tuning
    wire: Wire
    seconds: float
    """Length of the part with faults."""
    clients: int
    operations: int
    """Operations of each client."""
    pause_seconds: float
    """Mean pause between a client's operations."""
    faults: tuple[PlannedFault, ...]

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.size} nodes, {'forming, ' if self.forms else ''}{self.seconds:.1f} s,"
            f" {self.clients} clients of {self.operations} operations, {self.tuning}, {self.wire}"
        ]
        return "\n".join([*lines, *(f"  {fault}" for fault in self.faults)])


def make_plan(seed: int) -> Plan:
    """The plan of a seed; always the same."""
    source = random.Random(f"{seed}/plan")
    size = source.choices((3, 5, 7), (84, 12, 4))[0]
    long = source.random() < LONG_SHARE
    seconds = source.uniform(3.0, 8.0) if long else source.uniform(0.3, 1.2)
    clients = source.randint(2, 4)
    pause_seconds = source.choice((0.01, 0.04, 0.1))
    operations = max(4, int(min(40, seconds / (pause_seconds + 0.02)) * source.uniform(0.4, 0.9)))
    tuning = Tuning(
        snapshot_logs_since_last=source.choice((5, 10, 20, 60)),
        max_applied_log_to_keep=source.choice((0, 5, 20)),
        snapshot_chunk_size_bytes=source.choice((2_048, 16_384, 1_048_576)),
        install_snapshot_timeout_ms=source.choice((200, 1_000)),
        sync_seconds=source.choice((0.0002, 0.0005, 0.004)),
    )
    count = source.randint(1, 4) if not long else source.randint(6, 16)
    wire_source = random.Random(f"{seed}/wire")
    wire = _wire(wire_source)
    drawn = _faults(random.Random(f"{seed}/faults"), count, seconds) + _faults_apart(wire_source, seconds)
    drawn += _identity_faults(random.Random(f"{seed}/identity"), seconds)
    drawn += _stall_faults(random.Random(f"{seed}/stalls"), seconds)
    drawn += _address_faults(random.Random(f"{seed}/address"), seconds)
    drawn += _copy_faults(random.Random(f"{seed}/copies"), seconds)
    drawn += _limit_faults(random.Random(f"{seed}/limits"), seconds)
    drawn += _clock_faults(random.Random(f"{seed}/clocks"), seconds)
    faults = tuple(sorted(drawn, key=lambda fault: fault.at_seconds))
    seconds = long_enough(seconds, faults)
    forms = source.random() < FORMATION_SHARE
    return Plan(seed, size, forms, tuning, wire, seconds, clients, operations, pause_seconds, faults)


def long_enough(seconds: float, faults: Iterable[PlannedFault]) -> float:
    """The length of a history, longer for a fault that needs the time."""
    return max([seconds, *(fault.at_seconds + _LONG_FAULTS.get(fault.kind, 0.0) for fault in faults)])


def _wire(source: random.Random) -> Wire:
    buffer_bytes, unsent_bytes_high = source.choice(_BUFFERS)
    return Wire(
        security=source.choices(SECURITIES, (4, 3, 2, 1))[0],
        buffer_bytes=buffer_bytes,
        unsent_bytes_high=unsent_bytes_high,
        splits=source.choice((0.0, 0.05, 0.4)),
    )


def _faults(source: random.Random, count: int, seconds: float) -> list[PlannedFault]:
    """Random kinds at random times; often one kind several times, as faults of one kind find more together."""
    apart = {*_DRAWN_APART, *IDENTITY_FAULTS, *STALL_FAULTS, *ADDRESS_FAULTS, *COPY_FAULTS, *LIMIT_FAULTS, *CLOCK_FAULTS}
    kinds = sorted(FAULTS.keys() - apart)
    favourites = source.sample(kinds, 3)
    chosen = [source.choice(favourites if source.random() < 0.5 else kinds) for _ in range(count)]
    return [PlannedFault(i, kind, seconds * 0.9 * source.random()) for i, kind in enumerate(chosen)]


def _faults_apart(source: random.Random, seconds: float) -> list[PlannedFault]:
    kinds = [source.choice(sorted(_DRAWN_APART)) for _ in range(source.choice((0, 0, 1, 2)))]
    return [PlannedFault(_APART_FROM + i, kind, seconds * 0.9 * source.random()) for i, kind in enumerate(kinds)]


def _identity_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _IDENTITY_SHARE:
        return []
    kind = source.choice(sorted(IDENTITY_FAULTS))
    return [PlannedFault(_IDENTITY_FROM, kind, seconds * 0.9 * source.random())]


def _stall_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _STALL_SHARE:
        return []
    kind = source.choice(sorted(STALL_FAULTS))
    return [PlannedFault(_STALL_FROM, kind, seconds * (0.3 + 0.7 * source.random()))]


def _address_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _ADDRESS_SHARE:
        return []
    kind = source.choice(sorted(ADDRESS_FAULTS))
    return [PlannedFault(_ADDRESS_FROM, kind, seconds * 0.9 * source.random())]


def _copy_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _COPY_SHARE:
        return []
    kind = source.choice(sorted(COPY_FAULTS))
    return [PlannedFault(_COPY_FROM, kind, seconds * 0.9 * source.random())]


def _limit_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _LIMIT_SHARE:
        return []
    kind = source.choice(sorted(LIMIT_FAULTS))
    return [PlannedFault(_LIMIT_FROM, kind, seconds * 0.7 * source.random())]


def _clock_faults(source: random.Random, seconds: float) -> list[PlannedFault]:
    if source.random() >= _CLOCK_SHARE:
        return []
    kind = source.choice(sorted(CLOCK_FAULTS))
    return [PlannedFault(_CLOCK_FROM, kind, seconds * 0.9 * source.random())]


def without(plan: Plan, fault: PlannedFault) -> Plan:
    return replace(plan, faults=tuple(other for other in plan.faults if other != fault))
