"""A byte flips in a state file under load: found within a minute, and rebuilt by the runbook, with every promise kept.

Not in the groups of `test_chaos_rounds.py`: a round takes as long as a node takes to look at its file, half a minute.
"""

from __future__ import annotations

import pytest

from metasrv.testing.network import Network, why_unavailable
from tests.conftest import RecordProperty, StartCluster
from verification.chaos import SETTINGS, run_round
from verification.evidence import replay_command
from verification.nemesis import faults_named

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["flipped byte, follower", "flipped byte, leader"])
async def test_a_flipped_byte_under_load_is_found_and_the_node_rebuilt(
    start_cluster: StartCluster, name: str, record_property: RecordProperty
) -> None:
    (fault,) = faults_named([name])
    network = Network(7)
    cluster = start_cluster(3, settings=SETTINGS, network=network)
    try:
        await cluster.boot()
        one = await run_round(cluster, fault, seed=7)
        record_property("measured", f"{one.fault}: {one.record.total} operations, {one.seconds:.1f} s")
        assert one.problems == [], f"again: {replay_command(one)}"
        assert one.failure is None, f"{one.failure}\nagain: {replay_command(one)}"
    finally:
        cluster.close(keep_files=True)
        await network.close()
