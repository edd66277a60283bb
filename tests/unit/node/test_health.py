"""Each check at its limit and one past it; liveness never looks at the cluster; the texts of the probes."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.config.model import Config, RaftConfig
from metasrv.model.sizes import size_text
from metasrv.model.types import LogId, PeerProgress, RaftState, RaftStatus, WriteLimits
from metasrv.node import directory_probe, health
from metasrv.node.context import NodeContext
from metasrv.node.directory_probe import DirectoryProbe, DirectoryReport, probe_directory
from metasrv.node.health import Check, check_liveness, check_readiness, judge
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status, sample_status
from metasrv.testing.hand_clock import HandClock

WRITABLE = DirectoryReport(True, "the data directory can be written", 2**40, 0.0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[NodeContext, FakeConsensus, HandClock]]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    config = Config(raft_config=RaftConfig(raft_dir=str(tmp_path), heartbeat_interval=500))
    clock = HandClock()
    context, consensus = fake_context(machine, config, sample_status(), clock)
    yield context, consensus, clock
    machine.close()


Parts = tuple[NodeContext, FakeConsensus, HandClock]


def failing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_a_healthy_node_passes_everything_and_says_why(node: Parts) -> None:
    checks = check_readiness(node[0], WRITABLE)
    assert failing(checks) == []
    assert tuple(check.name for check in checks) == health.READINESS_CHECKS
    assert all(check.reason for check in checks)
    assert tuple(check.name for check in check_liveness(node[0])) == health.LIVENESS_CHECKS


def test_a_stuck_loop_is_dead(node: Parts) -> None:
    context, _, clock = node
    clock.now += 10.0
    assert failing(check_liveness(context)) == []
    clock.now += 0.1
    assert failing(check_liveness(context)) == ["loop"]
    context.loop_beat_at = 0.0
    assert failing(check_liveness(context)) == []


@pytest.mark.parametrize(
    "status",
    [sample_status(fatal="the disk is full"), sample_status(state=RaftState.SHUTDOWN)],
    ids=["fatal", "shutdown"],
)
def test_a_stopped_engine_is_dead(node: Parts, status: RaftStatus) -> None:
    node[1].current = status
    assert failing(check_liveness(node[0])) == ["engine"]


def test_liveness_does_not_look_at_the_cluster(node: Parts) -> None:
    context, consensus, _ = node
    context.joined, context.draining = False, True
    consensus.current = sample_status(
        state=RaftState.CANDIDATE, leader_id=None, leader_contact_ms=None, has_quorum=False, commit_index=10**9
    )
    assert failing(check_liveness(context)) == []
    unready = failing(check_readiness(context, WRITABLE))
    assert unready == ["joined", "draining", "leader", "apply_lag"]


def test_a_node_that_has_not_joined_says_for_whom_it_waits(node: Parts) -> None:
    context, _, _ = node
    context.joined = False
    context.set_waiting_for("b:1 has not answered")
    (check,) = (check for check in check_readiness(context, WRITABLE) if check.name == "joined")
    assert check.reason.endswith("registered with the cluster: b:1 has not answered")


def test_a_node_that_was_removed_is_not_ready_and_says_why(node: Parts) -> None:
    node[1].current = sample_status(removed="node 1 was removed from its cluster")
    assert failing(check_liveness(node[0])) == [], "it must not be restarted"
    (check,) = (check for check in check_readiness(node[0], WRITABLE) if not check.passed)
    assert check.name == "member"
    assert check.reason == "this node is no longer a member: node 1 was removed from its cluster"


@pytest.mark.parametrize(
    ("status", "passed"),
    [
        (sample_status(leader_contact_ms=2999), True),
        (sample_status(leader_contact_ms=3000), False),
        (sample_status(leader_contact_ms=None), False),
        (sample_status(leader_id=None, leader_contact_ms=None), False),
        (leader_status(), True),
        (leader_status(has_quorum=False), False),
        (sample_status(state=RaftState.LEARNER), True),
    ],
)
def test_a_leader_must_be_known_and_near(node: Parts, status: RaftStatus, passed: bool) -> None:
    node[1].current = status
    assert ("leader" not in failing(check_readiness(node[0], WRITABLE))) is passed


@pytest.mark.parametrize(("lag", "passed"), [(0, True), (1000, True), (1001, False), (-1, True)])
def test_applying_may_lag_as_far_as_the_limit(node: Parts, lag: int, passed: bool) -> None:
    node[1].current = sample_status(commit_index=5000 + lag, last_applied=LogId(67, 5000, 2))
    assert ("apply_lag" not in failing(check_readiness(node[0], WRITABLE))) is passed


def test_a_node_whose_disk_stalls_is_not_ready_and_says_what_waits(node: Parts) -> None:
    node[1].current = sample_status(disk_stall="the disk stalls: a write of the raft log has not finished for 1.3 s")
    checks = check_readiness(node[0], WRITABLE)
    assert failing(checks) == ["disk"]
    assert "1.3 s" in next(check.reason for check in checks if check.name == "disk")
    assert failing(check_liveness(node[0])) == []


def test_a_node_that_installs_a_snapshot_is_not_ready(node: Parts) -> None:
    status = sample_status()
    node[1].current = sample_status(snapshot=status.snapshot._replace(installing=True))
    assert failing(check_readiness(node[0], WRITABLE)) == ["snapshot"]


def test_the_data_directory_must_have_been_looked_at(node: Parts) -> None:
    assert failing(check_readiness(node[0], None)) == ["data_directory"]
    broken = DirectoryReport(False, "it cannot be written", None, 0.0)
    assert failing(check_readiness(node[0], broken)) == ["data_directory"]


# ----------------------------------------------------------------------------- data directory


def test_a_probe_of_a_directory_leaves_nothing_behind(tmp_path: Path) -> None:
    passed, reason, free_bytes = probe_directory(str(tmp_path))
    assert passed
    assert "can be written" in reason
    assert free_bytes is not None
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_fails_the_probe(tmp_path: Path) -> None:
    passed, reason, _ = probe_directory(str(tmp_path / "gone"))
    assert not passed
    assert reason.endswith("cannot be written: No such file or directory")


def test_a_nearly_full_disk_fails_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes = probe_directory(str(tmp_path))[2]
    assert free_bytes is not None
    monkeypatch.setattr(directory_probe, "DISK_FREE_BYTES_MIN", free_bytes * 2)
    passed, reason, _ = probe_directory(str(tmp_path))
    assert not passed
    assert reason.endswith(f"has {size_text(free_bytes)} left, the limit is {size_text(free_bytes * 2)}")


def test_a_full_disk_has_a_number_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the metric went on saying what had been free before."""

    def full(**_arguments: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    passed, reason, free_bytes = probe_directory(str(tmp_path))
    assert not passed
    assert reason.endswith("cannot be written: No space left on device")
    assert free_bytes is not None


async def test_the_probe_remembers_its_answer_for_a_while(tmp_path: Path) -> None:
    clock = HandClock()
    directory = tmp_path / "data"
    probe = DirectoryProbe(str(directory), clock.monotonic)
    assert not (await probe.report()).passed
    directory.mkdir()
    clock.now += directory_probe.PROBE_AGE_SECONDS_MAX
    assert not (await probe.report()).passed
    clock.now += 0.001
    assert (await probe.report()).passed


async def test_a_hanging_disk_delays_one_answer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    looks = 0
    release = asyncio.Event()

    async def hang(self: DirectoryProbe) -> DirectoryReport:
        nonlocal looks
        looks += 1
        await release.wait()
        return DirectoryReport(True, "back again", 1, clock.monotonic())

    monkeypatch.setattr(DirectoryProbe, "_look", hang)
    monkeypatch.setattr(directory_probe, "PROBE_TIMEOUT_SECONDS", 0.0)
    probe = DirectoryProbe(str(tmp_path), clock.monotonic)
    assert "has not finished" in (await probe.report()).reason
    monkeypatch.setattr(directory_probe, "PROBE_TIMEOUT_SECONDS", 3600.0)
    clock.now += 60
    begun = time.monotonic()
    assert "has not finished" in (await probe.report()).reason
    assert time.monotonic() - begun < 5
    assert looks == 1
    release.set()
    await asyncio.sleep(0)
    clock.now += 60
    assert (await probe.report()).reason == "back again"


# ----------------------------------------------------------------------------- texts and routes

MIXED = [Check("one", True, "fine"), Check("two", False, "not fine")]


def test_a_failing_probe_always_lists_every_check() -> None:
    expected = "[+]one ok: fine\n[-]two failed: not fine\nreadyz check failed\n"
    for verbose in (False, True):
        assert judge("readyz", MIXED, [], verbose) == (False, expected)


def test_an_excluded_check_can_not_fail_the_probe() -> None:
    assert judge("readyz", MIXED, ["two"], False) == (True, "ok\n")
    text = "[+]one ok: fine\n[+]two excluded: ok\nwarn: the excluded check 'x' does not exist\nok\n"
    assert judge("readyz", MIXED, ["two", "x", "x"], True) == (True, text)


async def test_the_probe_routes(node: Parts) -> None:
    context, consensus, _ = node
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(context)), base_url="http://localhost"
    ) as client:
        for path in ("/livez", "/readyz", "/livez/loop", "/readyz/leader", "/readyz?verbose=false"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, "ok\n")
            assert answer.headers["cache-control"] == "no-store"
        verbose = await client.get("/readyz?verbose")
        assert verbose.text.splitlines()[-1] == "ok"
        assert len(verbose.text.splitlines()) == len(health.READINESS_CHECKS) + 1
        assert (await client.head("/readyz")).status_code == 200

        consensus.current = sample_status(leader_id=None)
        failed = await client.get("/readyz")
        assert (failed.status_code, "[-]leader failed: no leader is known\n" in failed.text) == (503, True)
        assert (await client.get("/readyz/leader")).status_code == 503
        assert (await client.get("/readyz/joined")).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz?exclude=leader")).status_code == 200
        assert (await client.get("/readyz?exclude=joined&exclude=leader")).status_code == 200
        unknown = await client.get("/readyz/quorum")
        assert unknown.status_code == 404
        assert unknown.text.startswith("readyz has no check 'quorum'; it has loop, engine")
    checks = context.metrics.work.health_checks.values
    assert checks["readyz", "leader", "fail"] > 0
    assert context.metrics.work.health["readyz", "leader"] is False
    assert context.metrics.work.health["livez", "loop"] is True


def test_a_wrong_clock_warns_and_fails_nothing(node: Parts) -> None:
    context, consensus, _ = node

    def clock_line(**changes: object) -> str:
        consensus.current = sample_status(**changes)
        checks = check_readiness(context, WRITABLE)
        verdict = judge("readyz", checks, (), verbose=True)
        assert verdict.passed, "it stays ready"
        assert judge("readyz", checks, (), verbose=False).text == "ok\n"
        return next(line for line in verdict.text.splitlines() if "clock" in line)

    assert clock_line(clock_offset_ms=1_000) == "[+]clock ok: no clock is known to differ by more than 1000 ms"
    ahead = "[!]clock warning: this node's clock is 1001 ms ahead of the majority's, the limit is 1000 ms"
    assert clock_line(clock_offset_ms=1_001) == ahead
    assert "is 7000 ms behind the majority's" in clock_line(clock_offset_ms=-7_000)
    peers = (PeerProgress(2, None, 12, True, clock_offset_ms=-1_001), PeerProgress(3, None, None, False))
    far = "[!]clock warning: clocks differ from this node's by more than 1000 ms: node 2 by -1001 ms"
    assert clock_line(clock_offset_ms=None, peers=peers) == far


# ----------------------------------------------------------------------------- copies of the state


def copy_check(context: NodeContext) -> Check:
    return next(check for check in check_readiness(context, WRITABLE) if check.name == "copy")


def test_a_damaged_copy_is_not_ready_and_says_why(node: Parts) -> None:
    context, _, clock = node
    assert copy_check(context).passed
    context.copies.compared_at = clock.monotonic()
    assert "were the same" in copy_check(context).reason
    context.copies.damage = "key 'k': the stored record does not match its checksum"
    assert copy_check(context) == Check(
        "copy", False, f"this node's copy of the state is damaged: {context.copies.damage}"
    )


def test_a_copy_that_differs_elsewhere_is_an_alarm_of_a_ready_node(node: Parts) -> None:
    context, _, _ = node
    context.copies.peers = {3: "three", 2: "two"}
    assert copy_check(context) == Check("copy", True, "ALARM: two; three")


def test_a_drained_node_is_not_ready_and_says_how_to_end_it(node: Parts) -> None:
    node[1].change(drained=True)
    (check,) = [check for check in check_readiness(node[0], WRITABLE) if not check.passed]
    assert check.name == "draining"
    assert "metactl node drain 1 --off" in check.reason


@pytest.mark.parametrize(
    ("limits", "size_bytes", "warns", "text"),
    [
        (WriteLimits(), 10**12, False, "the cluster takes writes"),
        (WriteLimits("moving", 0), 0, True, "the cluster is read-only since 1970-01-01T00:00:00+00:00: moving"),
        (WriteLimits(quota_bytes=100), 79, False, "keys and values take 79 of 100 bytes"),
        (WriteLimits(quota_bytes=100), 80, True, "keys and values take 80 of 100 bytes"),
    ],
)
def test_refused_writes_are_a_warning(node: Parts, limits: WriteLimits, size_bytes: int, warns: bool, text: str) -> None:
    node[1].change(limits=limits, data_size_bytes=size_bytes)
    (check,) = [check for check in check_readiness(node[0], WRITABLE) if check.name == "writes"]
    assert check == Check("writes", True, text, warns)
