"""Nodes that join, learn, leave and come back with an empty disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from metasrv.model.errors import ConfigError, JoinError, LeaveError, RemovedError
from metasrv.testing.processes import ProcessCluster
from tests.conftest import StartCluster
from tests.support.authority import Authority


def leave(
    leave_id: int, *via: str, arguments: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metasrv.cli.server", *arguments, "--leave-id", str(leave_id)]
    for address in via:
        command += ["--leave-via", address]
    given = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=given)


def metactl_status(cluster: ProcessCluster, node_id: int) -> str:
    command = [sys.executable, "-m", "metasrv.cli.ctl", "status", "--grpc-api-address", str(cluster.nodes[node_id].grpc)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def names(nodes: list[dict[str, object]]) -> list[str]:
    return [str(node["name"]) for node in nodes]


async def test_a_node_joins_through_a_follower(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    added = cluster.add_node(join=[str(cluster.nodes[follower].raft)])
    async with cluster.node_client(leader) as client:
        await client.put("before", b"1")
    cluster.start(added)
    await cluster.wait_for_leader(members=4)
    async with cluster.node_client(added) as client:
        assert await client.get("before") == b"1"
        await client.put("after", b"2")
    await cluster.wait_until_equal()


async def test_a_learner_receives_the_data_and_does_not_vote(cluster: ProcessCluster) -> None:
    added = cluster.add_node(learner=True)
    cluster.start(added)

    def knows_learner(statuses: dict[int, dict[str, Any]]) -> bool:
        return all(names(status["non_voters"]) == [str(added)] for status in statuses.values())

    statuses = await cluster.wait_for_statuses(knows_learner, "every node to list the learner")
    assert statuses[added]["state"] == "Learner"
    assert all(names(status["voters"]) == ["1", "2", "3"] for status in statuses.values())
    async with cluster.node_client(1) as client:
        await client.put("k", b"v")
    await cluster.wait_until_equal()
    _, metrics = await cluster.admin(added, "/v1/metrics")
    assert "metasrv_server_node_is_health 0" in metrics.splitlines()


async def test_a_joiner_that_nobody_reaches_holds_up_nobody_and_is_seen_and_removed(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    via = str(cluster.nodes[leader].raft)
    lost = cluster.add_node(join=[via], raft_advertise_host="127.0.0.2")
    cluster.start(lost)

    def is_waiting(statuses: dict[int, dict[str, Any]]) -> bool:
        peers = {peer["id"]: peer for peer in statuses[leader]["peers"]}
        return lost in peers and peers[lost]["caught_up"] is False and peers[lost]["learner_for_ms"] > 500

    await cluster.wait_for_statuses(is_waiting, "the leader to show a learner that never caught up, and its age")
    _, metrics = await cluster.admin(leader, "/v1/metrics")
    assert f'metasrv_raft_learner_waiting_seconds{{id="{lost}"}}' in metrics
    shown = metactl_status(cluster, leader)
    assert "WaitingLearners:" in shown
    assert re.search(
        rf"  - \[{lost}\] learns for 0:0\d:\d\d and never caught up; to remove it: "
        rf"metasrv --leave-id {lost} --leave-via {re.escape(via)}$",
        shown,
        re.MULTILINE,
    )
    follower = next(node_id for node_id in (1, 2, 3) if node_id != leader)
    assert f"  - [{lost}] learns for 0:0" in metactl_status(cluster, follower).partition("\nLearners:\n")[2]

    other = cluster.add_node(join=[via])
    cluster.start(other)
    await cluster.wait_until(
        lambda: "Databend Metasrv started" in cluster.nodes[other].output(), "another node to join meanwhile"
    )
    assert leave(lost, via).returncode == 0
    assert await cluster.wait_exit(lost) == JoinError.exit_code, "a leave ends the join for good"
    assert f"node {lost} was removed while it caught up" in cluster.nodes[lost].output()
    statuses = await cluster.wait_for_statuses(
        lambda seen: all(names(status["voters"]) == ["1", "2", "3", str(other)] for status in seen.values()),
        "the nodes that could be reached to vote",
    )
    assert all(status["non_voters"] == [] for status in statuses.values())
    _, metrics = await cluster.admin(leader, "/v1/metrics")
    assert "metasrv_raft_learner_waiting_seconds{" not in metrics
    assert "Learners:" not in metactl_status(cluster, leader)


async def test_a_voter_does_not_start_as_a_learner_and_becomes_one_as_it_is_told(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    voter, other = (node_id for node_id in cluster.nodes if node_id != leader)
    node = cluster.nodes[voter]
    assert await cluster.stop(voter) == 0
    node.settings.pop("single", None)
    node.settings.update(learner=True, join=[str(cluster.nodes[i].raft) for i in (leader, other)])
    node.write_config()
    cluster.start(voter)
    assert await cluster.wait_exit(voter) == ConfigError.exit_code
    assert f"node {voter} votes in its cluster, and a configuration takes no vote away" in node.output()
    status = await cluster.status(leader)
    assert status is not None
    assert str(voter) in names(status["voters"]), "nothing was changed"

    assert leave(voter, str(cluster.nodes[other].raft)).returncode == 0
    cluster.wipe(voter)
    cluster.start(voter)

    def learns(statuses: dict[int, dict[str, Any]]) -> bool:
        return all(names(status["non_voters"]) == [str(voter)] for status in statuses.values())

    await cluster.wait_for_statuses(learns, "the node to learn")
    await cluster.wait_for_ready(voter)


async def test_a_node_that_left_is_gone_from_every_list(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    leaving, staying = (node_id for node_id in cluster.nodes if node_id != leader)
    answer = leave(leaving, str(cluster.nodes[staying].raft))
    assert answer.returncode == 0, answer.stderr
    await cluster.kill(leaving)

    def gone(statuses: dict[int, dict[str, Any]]) -> bool:
        return all(str(leaving) not in names(status["voters"]) for status in statuses.values())

    await cluster.wait_for_statuses(gone, "the node to be gone")
    _, nodes = await cluster.admin(leader, "/v1/cluster/nodes")
    assert f'"name":"{leaving}"' not in nodes
    async with cluster.node_client(staying) as client:
        await client.put("k", b"v")
    assert leave(leaving, str(cluster.nodes[staying].raft)).returncode == 0


async def test_the_leader_does_not_remove_itself(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    answer = leave(leader, str(cluster.nodes[leader].raft))
    assert answer.returncode == 4
    text = answer.stdout + answer.stderr
    assert f"fail to leave: can not leave id={leader} via itself, source: leave-via-self" in text
    status = await cluster.status(leader)
    assert status is not None
    assert len(status["voters"]) == 3


def test_leave_through_addresses_that_do_not_answer_fails_with_their_names() -> None:
    answer = leave(7, "127.0.0.1:1", "127.0.0.1:2")
    assert answer.returncode == 4
    text = answer.stdout + answer.stderr
    assert "fail to leave 7 cluster via" in text
    assert "127.0.0.1:1" in text
    assert "127.0.0.1:2" in text


@pytest.mark.slow
async def test_a_node_with_an_empty_disk_is_not_counted_before_it_has_the_data(
    cluster: ProcessCluster,
) -> None:
    """A wiped voter that came back under its old id could otherwise vote away what it once acknowledged."""
    leader = await cluster.wait_for_leader()
    wiped = next(node_id for node_id in cluster.nodes if node_id != leader)
    async with cluster.node_client(leader) as client:
        await client.put("k", b"v")
    await cluster.kill(wiped)
    cluster.wipe(wiped)
    cluster.nodes[wiped].settings.pop("single", None)
    cluster.nodes[wiped].settings["join"] = [
        str(node.raft) for node_id, node in cluster.nodes.items() if node_id != wiped
    ]
    cluster.nodes[wiped].write_config()
    cluster.start(wiped)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_until_equal()
    async with cluster.node_client(wiped) as client:
        assert await client.get("k") == b"v"


async def test_a_second_process_with_the_id_of_a_healthy_member_is_refused_until_that_one_is_silent(
    cluster: ProcessCluster,
) -> None:
    """It put the healthy one out within a second: three voters of which two answered."""
    leader = await cluster.wait_for_leader()
    holder = next(node_id for node_id in cluster.nodes if node_id != leader)
    second = cluster.add_node(join=[str(cluster.nodes[leader].raft)], id=holder)
    cluster.start(second, "--wait-leader-timeout", "2500")
    assert await cluster.wait_exit(second) == JoinError.exit_code
    said = cluster.nodes[second].output()
    assert f"node id {holder} is in use by the node at {cluster.nodes[holder].raft}" in said
    statuses = await cluster.wait_for_statuses(lambda seen: len(seen) == 3, "three nodes to answer")
    assert all(names(status["voters"]) == ["1", "2", "3"] for status in statuses.values())
    assert statuses[leader]["failure_tolerance"] == 1
    assert next(peer for peer in statuses[leader]["peers"] if peer["id"] == holder)["lag"] == 0

    cluster.forget(second)
    await cluster.kill(holder)
    cluster.rejoin_from_scratch(holder)
    cluster.start(holder)
    await cluster.wait_until(
        lambda: "Databend Metasrv started" in cluster.nodes[holder].output().rpartition("Mode: join")[2],
        "the node with an empty directory to take the place of the one that is silent",
    )
    await cluster.wait_for_leader(members=3)
    await cluster.wait_until_equal()


async def _waits_to_be_out(cluster: ProcessCluster, node_id: int) -> str:
    """Wait until the node says that it is no member; returns its reason."""
    statuses = await cluster.wait_for_statuses(
        lambda seen: bool((seen.get(node_id) or {}).get("removed")), f"node {node_id} to say that it is out"
    )
    assert statuses[node_id]["state"] == "Learner"
    code, text = await cluster.admin(node_id, "/readyz")
    assert code == 503
    assert "[-]member failed: this node is no longer a member: " in text
    code, _ = await cluster.admin(node_id, "/livez")
    assert code == 200, "it must not be restarted"
    _, console = await cluster.admin(node_id, "/v1/console")
    assert f"Node {node_id} was removed from the cluster" in console
    reason: str = statuses[node_id]["removed"]
    assert cluster.nodes[node_id].output().count("NO LONGER A MEMBER") == 1
    return reason


async def _is_refused_until_its_directory_is_empty(cluster: ProcessCluster, node_id: int) -> None:
    for _ in range(2):
        cluster.start(node_id)
        assert await cluster.wait_exit(node_id) == RemovedError.exit_code
    assert "docs/runbooks/removed-node.md" in cluster.nodes[node_id].output()
    cluster.rejoin_from_scratch(node_id)
    cluster.start(node_id)
    await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready(node_id)


async def test_a_node_that_left_says_so_and_does_not_start_again_with_its_directory(cluster: ProcessCluster) -> None:
    """It went on to look for a leader for ever, as a voter that had no part in any vote."""
    leader = await cluster.wait_for_leader()
    leaving, staying = (node_id for node_id in cluster.nodes if node_id != leader)
    assert leave(leaving, str(cluster.nodes[staying].raft)).returncode == 0
    assert await _waits_to_be_out(cluster, leaving) == f"node {leaving} was removed from its cluster"
    assert await cluster.stop(leaving) == 0
    await _is_refused_until_its_directory_is_empty(cluster, leaving)


async def test_a_node_that_was_removed_while_it_was_down_ends_as_soon_as_it_learns_it(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader()
    leaving, staying = (node_id for node_id in cluster.nodes if node_id != leader)
    await cluster.kill(leaving)
    assert leave(leaving, str(cluster.nodes[staying].raft)).returncode == 0
    await _is_refused_until_its_directory_is_empty(cluster, leaving)


async def test_a_node_whose_id_was_given_away_while_it_was_silent_says_so(cluster: ProcessCluster) -> None:
    """It went on to say that it votes and is ready, also after a restart (S16)."""
    leader = await cluster.wait_for_leader()
    holder = next(node_id for node_id in cluster.nodes if node_id != leader)
    cluster.pause(holder)
    second = cluster.add_node(join=[str(cluster.nodes[leader].raft)], id=holder, learner=True)
    cluster.start(second)
    await cluster.wait_for_statuses(
        lambda seen: names((seen.get(leader) or {}).get("non_voters", [])) == [str(holder)],
        "the second node to have the id",
    )
    cluster.resume(holder)
    assert "its id belongs to another data directory now" in await _waits_to_be_out(cluster, holder)
    assert await cluster.stop(holder) == 0
    cluster.start(holder)
    assert await cluster.wait_exit(holder) == RemovedError.exit_code


async def test_a_cluster_with_a_raft_secret_removes_a_node_only_for_who_has_it(start_cluster: StartCluster) -> None:
    cluster: ProcessCluster = start_cluster(3, settings={"raft_secret": "one secret"})
    leader = await cluster.boot()
    leaving, staying = (node_id for node_id in cluster.nodes if node_id != leader)
    via = str(cluster.nodes[staying].raft)
    refused = leave(leaving, via)
    assert refused.returncode == LeaveError.exit_code
    assert "this node demands the shared secret (raft_secret) and the caller proved none" in refused.stderr
    assert leave(leaving, via, METASRV_RAFT_SECRET="one secret").returncode == 0
    status = await cluster.status(leader)
    assert status is not None
    assert str(leaving) not in names(status["voters"])


async def test_a_cluster_with_tls_removes_a_node_only_for_who_has_a_certificate(
    start_cluster: StartCluster, tmp_path: Path
) -> None:
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    for authority in (ours, other):
        authority.certify("node")
        authority.certify("operate", usage="clientAuth")
    cluster: ProcessCluster = start_cluster(3, settings={**ours.files("node"), "raft_tls_operators": ["operate"]})
    leader = await cluster.boot()
    leaving, staying = (node_id for node_id in cluster.nodes if node_id != leader)
    via = str(cluster.nodes[staying].raft)
    foreign = {f"METASRV_{key.upper()}": value for key, value in other.files("operate", ours).items()}
    for environment in ({}, foreign):
        refused = leave(leaving, via, **environment)
        assert refused.returncode == LeaveError.exit_code
        assert f"fail to leave {leaving} cluster via" in refused.stderr
        assert "it may demand TLS, or a certificate of its own authority (raft_tls_ca, " in refused.stderr
    status = await cluster.status(leader)
    assert status is not None
    assert len(status["voters"]) == 3

    # The certificate of a node, as in the configuration file of a member, is good for a node and not for a command.
    given = ["--config-file", str(cluster.nodes[staying].config_file)]
    refused = leave(leaving, via, arguments=given)
    assert refused.returncode == LeaveError.exit_code
    assert "the common name of its certificate, 'node', is not among raft_tls_operators" in refused.stderr

    certified = {f"METASRV_{key.upper()}": value for key, value in ours.files("operate").items()}
    answer = leave(leaving, via, **certified)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"node {leaving} left the cluster\n"
    status = await cluster.status(leader)
    assert status is not None
    assert str(leaving) not in names(status["voters"])
    assert leave(leaving, via, **certified).returncode == 0, "a node that is gone may be removed again"
