"""Twenty rounds over all families of faults, with the code and the checks of the long `make chaos`."""

from __future__ import annotations

import pytest

from metasrv.testing.network import Network, why_unavailable
from tests.conftest import RecordProperty, StartCluster
from verification.chaos import SETTINGS, run_round
from verification.evidence import replay_command
from verification.nemesis import FAULTS, Fault

GROUPS = [
    ["kill -9 any, repeatedly", "isolate the leader", "bits flipped", "replace, same id", "transfer leadership"],
    ["kill -9 a majority", "pause the leader", "flapping links", "file size limit", "profiles, snapshots, metrics"],
    ["kill -9 while starting", "leader deaf (one-way)", "half-open connection", "cut mid-frame", "full file system"],
    ["rolling restart", "clients cut off", "garbage inserted", "replace, another id", "storm of all kinds"],
]
BY_NAME = {fault.name: fault for fault in FAULTS}

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


def possible(names: list[str]) -> list[Fault]:
    """Faults that this machine can inflict; a pause of all nodes in the place of each of the others."""
    faults = [BY_NAME[name] for name in names]
    return [fault if fault.why_impossible() is None else BY_NAME["pause all nodes"] for fault in faults]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("group", range(len(GROUPS)))
async def test_each_fault_keeps_every_promise(
    start_cluster: StartCluster, group: int, record_property: RecordProperty
) -> None:
    network = Network(group)
    cluster = start_cluster(3, settings=SETTINGS, network=network)
    try:
        await cluster.boot()
        for number, fault in enumerate(possible(GROUPS[group])):
            one = await run_round(cluster, fault, seed=100 * group + number)
            record_property(
                "measured",
                f"{one.fault}: {one.record.total} operations, {one.record.unknown} unknown outcomes, "
                f"{one.unavailable_s:.2f} s without a write, {one.seconds:.1f} s",
            )
            assert one.problems == [], f"again: {replay_command(one)}"
            assert one.failure is None, f"{one.failure}\nagain: {replay_command(one)}"
            assert one.record.total > 100
    finally:
        cluster.close(keep_files=True)
        await network.close()
