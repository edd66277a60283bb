"""One round of each fault family, with the same code and the same checks as the long `make chaos`."""

from __future__ import annotations

import pytest

from metasrv.testing.chaos import SETTINGS, run_round
from metasrv.testing.nemesis import FAULTS

FAMILIES = [FAULTS[start::4] for start in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("family", range(len(FAMILIES)))
async def test_each_fault_keeps_every_promise(start_cluster, family: int, record_property) -> None:
    cluster = start_cluster(3, settings=SETTINGS)
    await cluster.boot()
    for number, fault in enumerate(FAMILIES[family]):
        one = await run_round(cluster, fault, seed=100 * family + number)
        record_property(
            "measured",
            f"{one.fault}: {one.operations} operations, {one.unknown} unknown outcomes, "
            f"{one.unavailable_s:.2f} s without a write",
        )
        assert one.problems == ()
        assert one.operations > 100
