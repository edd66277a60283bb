"""Each fault is named within ten seconds: by console, `metactl top`, events, and the alerts of a real Prometheus.

One table. The faults are made on real nodes, and the rules are those of conf/, sixty times faster
(tests/support/prometheus_server.py). No alert may come that the table does not name.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from metasrv.cli.ctl_admin import AdminClient
from metasrv.cli.top.source import Source
from metasrv.cli.top.view import Look, frame
from metasrv.model.errors import MetasrvError, NotDoneError, StorageError
from metasrv.testing.link import LinkFault
from metasrv.testing.network import Network
from metasrv.testing.processes import ProcessCluster
from tests.cluster.conftest import mounted
from tests.cluster.test_wrong_clock import HOOK, set_clock
from tests.conftest import RecordProperty, StartCluster
from tests.support.metactl import metactl
from tests.support.paths import ROOT
from tests.support.prometheus_server import WHY_NOT, PrometheusServer
from verification.nemesis.stall_faults import stalled_log, why_no_tracer

pytestmark = [pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)), pytest.mark.timeout(180)]

NAMED_WITHIN_SECONDS = 10.0
FREE_BYTES_MIN = 48 * 1024 * 1024
DISK_SIZE_MIB = 128
LEFT_MIB = 24
STALL_SECONDS = 30.0


@dataclass
class Scene:
    """A cluster with a healthy leader, the node that is harmed, and a node that sees it."""

    cluster: ProcessCluster
    directory: Path
    leader: int
    harmed: int
    witness: int
    stack: AsyncExitStack
    enter: list[str]

    def instance(self, node_id: int) -> str:
        return str(self.cluster.nodes[node_id].admin)


@dataclass(frozen=True)
class Fault:
    """What is done to the cluster, and what must be said of it."""

    name: str
    make: Callable[[Scene], Awaitable[None]]
    alerts: frozenset[str]
    """Those that have to come."""
    problem: str
    """How a title of the console begins, and a line of `metactl top`; `{}` for the node."""
    event: str
    """Part of the text of an event, `{}` for the node."""
    allowed: frozenset[str] = frozenset()
    """Those that may come as well."""
    asked: str = "witness"
    """Which node is asked for console, `top` and events: `witness` or `harmed`."""
    later: Callable[[Scene], Awaitable[None]] | None = None
    """What is done after that, and leaves the same alerts."""


async def kill(scene: Scene) -> None:
    await scene.cluster.kill(scene.harmed)


async def pause(scene: Scene) -> None:
    scene.cluster.pause(scene.harmed)
    scene.stack.callback(scene.cluster.resume, scene.harmed)


async def fill_disk(scene: Scene) -> None:
    """All but a little."""
    await _fill(scene, "filler", DISK_SIZE_MIB - LEFT_MIB)


async def fill_the_rest(scene: Scene) -> None:
    await _fill(scene, "rest", DISK_SIZE_MIB)
    await has_ended(scene)


async def fill_disk_at_once(scene: Scene) -> None:
    """The node ends at its next write; nobody was warned before."""
    await _fill(scene, "filler", DISK_SIZE_MIB)


async def has_ended(scene: Scene) -> None:
    """What it said last has to be enough for the alert."""
    assert await scene.cluster.wait_exit(scene.harmed) == StorageError.exit_code
    await asyncio.sleep(3)  # longer than Prometheus needs to find out that the node is gone


async def _fill(scene: Scene, name: str, size_mib: int) -> None:
    path = scene.cluster.nodes[scene.harmed].raft_dir / name
    command = [*scene.enter, "dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size_mib}"]
    await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)


async def slow_disk(scene: Scene) -> None:
    await scene.stack.enter_async_context(stalled_log(scene.cluster, scene.harmed, STALL_SECONDS))


async def partition(scene: Scene) -> None:
    network = scene.cluster.network
    assert network is not None
    others = [node_id for node_id in scene.cluster.nodes if node_id != scene.harmed]
    network.harm(LinkFault(swallows=True), [(other, scene.harmed) for other in others])
    network.harm(LinkFault(swallows=True), [(scene.harmed, other) for other in others])


async def wrong_clock(scene: Scene) -> None:
    set_clock(scene.directory, scene.harmed, 3_600_000)


async def remove(scene: Scene) -> None:
    await metactl("member", "remove", scene.harmed, "--admin-api-address", scene.cluster.nodes[scene.leader].admin)


LOST = frozenset({"MetasrvNoFailureTolerance"})
ELECTION = frozenset({"MetasrvNoLeader", "MetasrvNotReady", "MetasrvRequestsFail", "MetasrvSlowRequests"})
BUSY = frozenset({"MetasrvLoopLag", "MetasrvSlowDisk", "MetasrvSlowStateCommit", "MetasrvSlowRequests"})
"""A machine that has much else to do brings these about, whatever the fault."""
SILENT = "node {} not heard for"
FAULTS = (
    Fault("killed", kill, LOST | {"MetasrvNodeDown"}, "Node {} is silent", SILENT),
    Fault("paused", pause, LOST | {"MetasrvNodeDown"}, "Node {} is silent", SILENT),
    Fault(
        "full-disk",
        fill_disk,
        frozenset({"MetasrvDiskSpaceLow"}),
        "The disk of node {} is full",
        "the data directory",
        LOST | ELECTION | {"MetasrvNodeDown", "MetasrvDiskFills"},
        later=fill_the_rest,
    ),
    Fault(
        "full-disk-at-once",
        fill_disk_at_once,
        frozenset({"MetasrvDiskSpaceLow"}),
        "The disk of node {} is full",
        "full",
        LOST | ELECTION | {"MetasrvNodeDown", "MetasrvDiskFills"},
        later=has_ended,
    ),
    Fault(
        "slow-disk",
        slow_disk,
        frozenset({"MetasrvDiskStalls", "MetasrvNotReady"}),
        "The disk of node {} does not answer",
        "the disk stalls",
        LOST | ELECTION | {"MetasrvPeerLag"},
    ),
    Fault("partition", partition, LOST | {"MetasrvNoLeader"}, "Node {} is silent", SILENT, ELECTION),
    Fault("clock-off", wrong_clock, frozenset({"MetasrvClockOff"}), "The clock of node {} is off", "clock is"),
    Fault(
        "removed",
        remove,
        frozenset({"MetasrvNodeRemoved"}),
        "Node {} was removed from the cluster",
        "no longer a member",
        LOST,
        "harmed",
    ),
)
FILL = (fill_disk, fill_disk_at_once)


@asynccontextmanager
async def writes(cluster: ProcessCluster) -> AsyncIterator[None]:
    """Some writes a second within the block; that some fail is what the fault does."""

    async def write() -> None:
        async with cluster.client(timeout_ms=2_000) as client:
            while True:
                with suppress(MetasrvError):
                    await client.upsert("written", b"v")
                await asyncio.sleep(0.1)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def scene(request: pytest.FixtureRequest, start_cluster: StartCluster, tmp_path: Path) -> AsyncIterator[Scene]:
    """Three nodes with what the fault needs: a small disk, a clock that can be set, links that can be cut."""
    fault: Fault = request.param
    if fault.make is slow_disk and (reason := why_no_tracer()) is not None:
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        network = None
        if fault.make is partition:
            network = Network()
            stack.push_async_callback(network.close)
        cluster = start_cluster(3, network=network)
        await cluster.open_network()
        enter, mount = request.getfixturevalue("small_disk") if fault.make in FILL else ([], [])
        hook: dict[str, str] = {}
        if fault.make is wrong_clock:
            (tmp_path / "sitecustomize.py").write_text(HOOK)
            hook = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
        harmed = 3
        for node_id, node in cluster.nodes.items():
            if enter and node_id == harmed:
                node.raft_dir.mkdir(parents=True)
                size = f"size={DISK_SIZE_MIB}m,mode=700"
                if not mounted([*mount, "-t", "tmpfs", "-o", size, "tmpfs", str(node.raft_dir)]):
                    pytest.skip("a tmpfs cannot be mounted here")
            clock = {"CLOCK_OFFSET_MS_FILE": str(tmp_path / f"clock-{node_id}")} if hook else {}
            cluster.start(node_id, wrapper=enter if node_id == harmed else (), **hook, **clock)
        leader = await cluster.wait_for_leader(members=3)
        await cluster.wait_for_ready()
        if leader == harmed:
            await cluster.admin(leader, "/v1/ctrl/trigger_transfer_leader")
            leader = await cluster.wait_for_leader(other_than=harmed)
        witness = next(node_id for node_id in cluster.nodes if node_id not in (leader, harmed))
        yield Scene(cluster, tmp_path, leader, harmed, witness, stack, enter)


async def titles(scene: Scene, node_id: int) -> list[str]:
    _, body = await scene.cluster.admin(node_id, "/v1/console")
    return [problem["title"] for problem in json.loads(body)["problems"]]


async def lines_of_top(scene: Scene, node_id: int) -> list[str]:
    """One frame of `metactl top` that asks this node alone."""

    def one_frame() -> list[str]:
        news = Source([scene.instance(node_id)], lambda address: AdminClient(address)).first()
        return [line.plain for line in frame(news, Look(width=100))]

    return await asyncio.to_thread(one_frame)


async def texts(scene: Scene, node_id: int) -> list[str]:
    """What the events of all nodes say that this node reaches."""
    _, body = await scene.cluster.admin(node_id, "/v1/events?limit=1000")
    return [event["text"] for event in json.loads(body)["events"]]


READERS = {"console": titles, "top": lines_of_top, "events": texts}


@pytest.mark.parametrize(
    "scene",
    [pytest.param(fault, id=fault.name, marks=() if fault.name == "removed" else pytest.mark.long) for fault in FAULTS],
    indirect=True,
)
async def test_a_fault_is_named_by_console_top_events_and_alerts(
    scene: Scene, request: pytest.FixtureRequest, record_property: RecordProperty
) -> None:
    fault: Fault = request.node.callspec.params["scene"]
    node = scene.harmed
    asked = node if fault.asked == "harmed" else scene.witness
    wanted = {
        "console": fault.problem.format(node),
        "top": f"! {fault.problem}".format(node),
        "events": fault.event.format(node),
        **dict.fromkeys(fault.alerts, ""),
    }
    named: dict[str, float] = {}
    seen: set[tuple[str, str]] = set()
    targets = [str(one.admin) for one in scene.cluster.nodes.values()]
    changes = {"1073741824": str(FREE_BYTES_MIN)}
    async with PrometheusServer(scene.directory, targets, changes) as prometheus, writes(scene.cluster):
        await until_quiet(prometheus, len(targets))
        await fault.make(scene)
        made_at = time.monotonic()
        while set(named) != set(wanted) and time.monotonic() < made_at + NAMED_WITHIN_SECONDS:
            for place, read in READERS.items():
                if place not in named and any(wanted[place] in text for text in await ask(read, scene, asked)):
                    named[place] = time.monotonic() - made_at
            alerts = await prometheus.alerts()
            seen |= alerts
            for name, _ in alerts:
                if name in fault.alerts:
                    named.setdefault(name, time.monotonic() - made_at)
            await asyncio.sleep(0.2)
        record_property("measured", ", ".join(f"{what} {seconds:.1f} s" for what, seconds in named.items()))
        assert set(named) == set(wanted), (named, seen)
        if fault.later is not None:
            await fault.later(scene)
            assert fault.alerts <= {name for name, _ in await prometheus.alerts()}
        firing = await prometheus.firing()
        wrong = firing - fault.alerts - fault.allowed - BUSY
        assert not wrong, (wrong, seen)
        about = {place for name, place in seen if name in ("MetasrvNodeDown", "MetasrvNodeRemoved", "MetasrvClockOff")}
        assert about <= {scene.instance(node)}, "it is the harmed node that they name"


async def ask(what: Callable[[Scene, int], Awaitable[list[str]]], scene: Scene, node_id: int) -> list[str]:
    """What a node says; one that has ended says nothing, and another one is asked for its last words."""
    try:
        return await what(scene, node_id)
    except (OSError, ValueError, NotDoneError):
        return await what(scene, scene.witness)


async def until_quiet(prometheus: PrometheusServer, count: int) -> None:
    """Until all nodes were read and nothing but a busy machine is told of."""
    deadline = time.monotonic() + 30
    while await prometheus.targets_up() < count or {name for name, _ in await prometheus.alerts()} - BUSY:
        assert time.monotonic() < deadline, await prometheus.alerts()
        await asyncio.sleep(0.2)
