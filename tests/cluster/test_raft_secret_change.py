"""A raft secret is adopted, and then changed, by the steps of docs/operating.md, while a client writes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from metasrv.model.errors import UnknownOutcomeError
from metasrv.testing.processes import ProcessCluster
from tests.support.secret_procedure import Step, documented_steps

INTERRUPTION_SECONDS_MAX = 5.0
"""For one key; a restart of a leader costs a fraction of a second, a node that is locked out would cost the majority."""
FIRST, SECOND = "the first secret", "the second secret"


async def restart_with(cluster: ProcessCluster, node_id: int, step: Step) -> None:
    node = cluster.nodes[node_id]
    kept = {key: value for key, value in node.settings.items() if key not in Step._fields}
    given: dict[str, Any] = {key: value for key, value in step._asdict().items() if value}
    node.settings = {**kept, **given}
    node.write_config()
    assert await cluster.stop(node_id) == 0
    cluster.start(node_id)
    await cluster.wait_for_leader()
    await cluster.wait_for_ready(node_id)


async def write_until(done: asyncio.Event, cluster: ProcessCluster) -> float:
    """Write one key after the other, again while the outcome is unknown; the longest that a key took, in seconds."""
    longest, number = 0.0, 0
    async with cluster.client() as client:
        while not done.is_set():
            number, begun = number + 1, time.monotonic()
            written = False
            while not written:
                with contextlib.suppress(UnknownOutcomeError):
                    await client.upsert(f"key-{number}", b"value")
                    written = True
                await asyncio.sleep(0.02)
            longest = max(longest, time.monotonic() - begun)
    return longest


@pytest.mark.parametrize(
    ("old", "new"),
    [pytest.param(None, FIRST, id="adopted"), pytest.param(FIRST, SECOND, id="rotated", marks=pytest.mark.long)],
)
async def test_a_new_secret_takes_effect_without_an_interruption(old: str | None, new: str) -> None:
    settings = {} if old is None else {"raft_secret": old}
    async with ProcessCluster(3, settings=settings) as cluster:
        await cluster.boot()
        done = asyncio.Event()
        writing = asyncio.create_task(write_until(done, cluster))
        for step in documented_steps(old, new):
            for node_id in (1, 2, 3):
                await restart_with(cluster, node_id, step)
                assert not writing.done()
        done.set()
        assert await writing < INTERRUPTION_SECONDS_MAX
        await cluster.wait_until_equal()
        assert "was let in without the shared secret" not in cluster.nodes[1].output()

        stranger = cluster.add_node(raft_secret=old or "another", wait_leader_timeout=3_000)
        cluster.start(stranger)
        assert await cluster.wait_exit(stranger) == 3
