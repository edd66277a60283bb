"""The pages about upgrades, carried out with nodes of the previous release (`support/documents.py` runs the blocks)."""

from __future__ import annotations

from pathlib import Path

import pytest

from metasrv import __version__
from metasrv.cli.node_process import THIS_PROGRAM
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.documented_data import check, fill
from tests.support.documents import Operator
from tests.support.releases import PREVIOUS, unpacked


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_cluster_is_upgraded_and_goes_back_as_the_pages_say(start_cluster: StartCluster, tmp_path: Path) -> None:
    """Up by the runbook and back by the section of the release; each has a step that only it has."""
    previous = unpacked(PREVIOUS, tmp_path / "release")
    cluster: ProcessCluster = start_cluster(3, program=previous)
    await cluster.boot()
    await fill(cluster)
    async with Operator(cluster, "upgrade-runbook") as runbook, Operator(cluster, "upgrade-0-3") as section:
        assert "restart" in await runbook.run(1)
        for node_id, node in cluster.nodes.items():
            node.program = THIS_PROGRAM  # "install the release"
            if node_id == 3:
                assert f"version: {__version__}" in await section.run(1, node_id)
                await section.run(2, node_id)
            else:
                assert f"version: {__version__}" in await runbook.run(2, node_id)
            await cluster.wait_for_leader(members=3)
        assert (await runbook.run(3)).count(__version__) >= 3
    await check(cluster)
    async with Operator(cluster, "rollback-runbook") as runbook, Operator(cluster, "rollback-0-3") as section:
        for node_id, node in cluster.nodes.items():
            steps = section if node_id == 3 else runbook
            assert f"yes: {PREVIOUS} can open this directory" in await steps.run(1, node_id)
            node.program = previous  # "install 0.2.0"
            await steps.run(2, node_id)
            await cluster.wait_for_leader(members=3)
    versions = {status["binary_version"] for status in (await cluster.statuses()).values() if status is not None}
    assert versions == {PREVIOUS}
    await check(cluster)
