"""What a newcomer does with docs/operating.md: from nothing to a cluster that was backed up, destroyed and restored."""

from __future__ import annotations

import pytest

from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.documents import Operator

TOUR_SECONDS = 150.0


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_tour_ends_with_a_restored_cluster(start_cluster: StartCluster) -> None:
    """All in one shell; the ports are those that were picked for three nodes, which this test never starts itself."""
    cluster: ProcessCluster = start_cluster(3)
    nodes = cluster.nodes.values()
    ports = "".join(
        f"{name}=(0 {' '.join(str(getattr(node, name).port) for node in nodes)})\n" for name in ("admin", "grpc", "raft")
    )
    changed = {"28${id}01": "${admin[id]}", "919${id}": "${grpc[id]}", "28${id}03": "${raft[id]}"}
    changed["28${other}03"] = "${raft[other]}"
    changed |= {f"127.0.0.1:28{node_id}03": str(node.raft) for node_id, node in cluster.nodes.items()}
    async with Operator(cluster, "tour") as operator:
        tour = await operator.begin_all(f"{ports}mkdir tour && cd tour\n", changed)
        printed = await tour.end(seconds=TOUR_SECONDS)
        assert sorted(file.name for file in (operator.root / "tour").iterdir()) == sorted(
            [
                *(f"node{number}{end}" for number in (1, 2, 3) for end in ("", ".toml", ".out")),
                "tour.archive",
                ".databend",
            ]
        )
    hello = ",".join(map(str, b"hello"))
    assert printed.count(f'"data":[{hello}]') == 2
    assert "LastSeq: 2" in printed
    assert "Keys: 2" in printed
    assert "confirmed" in printed
