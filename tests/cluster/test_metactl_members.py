"""metactl's commands about the whole cluster, as an operator types them, against real nodes.

One cluster for all of it, because starting one takes longer than the commands.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from metasrv.testing.processes import ProcessCluster
from tests.support.metactl import Ran, metactl


def at(cluster: ProcessCluster, *node_ids: int) -> tuple[str, str]:
    return "--admin-api-address", ",".join(str(cluster.nodes[node_id].admin) for node_id in node_ids)


async def members(cluster: ProcessCluster, node_id: int) -> dict[int, dict[str, Any]]:
    ran = await metactl("member", "list", *at(cluster, node_id), "-o", "jsonl")
    return {row["id"]: row for row in map(json.loads, ran.out.splitlines())}


def start_from(cluster: ProcessCluster, node_id: int, file: Path) -> None:
    """Start a node with exactly the configuration that metactl wrote."""
    node = cluster.nodes[node_id]
    node.directory.mkdir(exist_ok=True)
    node.config_file.write_text(file.read_text(), encoding="utf-8")
    cluster.start(node_id)


@pytest.mark.timeout(240)
async def test_an_operator_looks_at_a_cluster_restarts_it_and_changes_its_members(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    assert await cluster.wait_for_leader(members=3)
    await cluster.wait_for_ready()
    await any_endpoint_shows_the_whole_cluster(cluster)
    await a_context_stands_for_addresses_and_a_rolling_restart_is_walked(cluster, tmp_path)
    await members_come_and_go(cluster, tmp_path)


async def any_endpoint_shows_the_whole_cluster(cluster: ProcessCluster) -> None:
    leader = await cluster.wait_for_leader(members=3)
    follower = next(node_id for node_id in cluster.nodes if node_id != leader)
    listed = (await metactl("member", "list", *at(cluster, follower))).out.splitlines()
    assert listed[0].split()[:4] == ["ID", "ROLE", "RAFT", "ADDRESS"]
    assert [line.split()[0] for line in listed[1:4]] == ["1", "2", "3"]
    assert f"{leader}   leader  {cluster.nodes[leader].raft}" in listed[leader]
    assert listed[4] == "3 of 3 voters answer, 2 are needed: one more failure is tolerated"
    whole = json.loads((await metactl("endpoint", "status", *at(cluster, follower), "-o", "json")).out)
    assert (
        yaml.safe_load((await metactl("endpoint", "status", *at(cluster, leader), "-o", "yaml")).out).keys()
        == whole.keys()
    )
    assert [row["version"] for row in whole["members"]] == [whole["members"][0]["version"]] * 3
    status = (await metactl("endpoint", "status", *at(cluster, follower))).out
    assert f"node {leader} leads; 3 of 3 voters answer" in status
    healthy = await metactl("endpoint", "health", *at(cluster, follower))
    assert [line.split()[2] for line in healthy.out.splitlines()[1:4]] == ["yes"] * 3
    plan = (await metactl("cluster", "restart-plan", *at(cluster, follower))).out.splitlines()
    assert [int(line.split()[2]) for line in plan[1:4]][-1] == leader, "the leader is restarted last"

    await cluster.kill(follower)
    first_silent = at(cluster, follower, leader)

    ran = await metactl("endpoint", "health", *first_silent, "-o", "json", code=3)
    assert re.search(rf"^Error: node {follower}: .*did not answer|^Error: node {follower}: ", ran.err)
    found = json.loads(ran.out)
    assert (found["healthy"], found["failure_tolerance"]) == (False, 0)
    assert [row["healthy"] for row in found["members"] if row["id"] == follower] == [False]
    await metactl("cluster", "restart-plan", *first_silent, code=3)
    third = next(node_id for node_id in cluster.nodes if node_id not in (leader, follower))
    refused = await metactl("member", "remove", third, *first_silent, code=1)
    assert "status code: 409" in refused.err
    assert f"1 of 2 voters answer, 2 are needed: writes are refused. Silent: node {follower}." in refused.err
    cluster.start(follower)
    await cluster.wait_for_ready()


async def a_context_stands_for_addresses_and_a_rolling_restart_is_walked(cluster: ProcessCluster, tmp_path: Path) -> None:
    file = tmp_path / "metactl.toml"
    endpoints = [str(node.admin) for node in cluster.nodes.values()]
    clients = [str(node.grpc) for node in cluster.nodes.values()]
    text = f"[contexts.local]\nendpoints = {json.dumps(endpoints)}\ngrpc_endpoints = {json.dumps(clients)}\n"
    file.write_text(f"{text}[contexts.other]\nendpoints = ['127.0.0.1:1']\ntoken = 'planted-secret'\n")
    file.chmod(0o600)
    here = {"METACTL_CONFIG": str(file)}
    assert (await metactl("context", "use", "local", environment=here)).out == "context local is used from now on\n"
    for command in (("config", "view"), ("context", "list"), ("context", "show", "other")):
        assert "planted-secret" not in (await metactl(*command, environment=here)).out
    assert "complete -F _metactl metactl" in (await metactl("completion", "bash")).out
    assert (await metactl("upsert", "--key", "k", "--value", "v", environment=here)).out.startswith("upsert-result")
    assert (await metactl("endpoint", "health", environment=here)).err == ""
    await metactl("endpoint", "health", code=1, environment={**here, "METACTL_CONTEXT": "other"})
    file.chmod(0o644)
    assert (
        "has secrets and is open to other users (mode 0644)"
        in (await metactl("member", "list", code=1, environment=here)).err
    )
    file.chmod(0o600)

    plan = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "metasrv.cli.ctl", "cluster", "restart-plan", "--wait", "60", "-o", "jsonl"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **here},
    )
    assert plan.stdout is not None
    restarted = []
    while line := await asyncio.wait_for(plan.stdout.readline(), 60):
        step = json.loads(line)
        if step["restart"] is None:
            continue
        leader = await cluster.wait_for_leader()
        assert (step["role"] == "leader") == (step["restart"] == leader), "the leader of that moment"
        assert await cluster.stop(step["restart"]) == 0
        cluster.start(step["restart"])
        restarted.append(step["restart"])
    assert await plan.wait() == 0
    assert sorted(restarted) == [1, 2, 3]
    assert step == {"step": None, "restart": None, "steps": 3}


async def members_come_and_go(cluster: ProcessCluster, tmp_path: Path) -> None:
    learner = cluster.add_node()
    node = cluster.nodes[learner]
    flags = ["--new-grpc-address", node.grpc, "--new-admin-address", node.admin, "--new-raft-dir", node.raft_dir]
    file = tmp_path / "node.toml"

    added = await metactl(
        "member", "add", *at(cluster, 1), "--raft-address", node.raft, *flags, "--learner", "--config-out", file
    )
    assert added.out.startswith(f"nothing yet: node {learner} becomes a member when it starts")
    again = await metactl("member", "add", *at(cluster, 1), "--raft-address", node.raft, "--config-out", file, code=1)
    assert "exists already; nothing was asked" in again.err
    start_from(cluster, learner, file)
    await cluster.wait_for_ready(learner)
    assert (await members(cluster, 2))[learner]["role"] == "learner"

    promoted = await metactl("member", "promote", learner, *at(cluster, 2))
    assert promoted.out.splitlines()[:2] == [
        f"node {learner} votes from now on",
        "4 of 4 voters answer, 3 are needed: one more failure is tolerated",
    ]
    assert (await members(cluster, 3))[learner]["votes"] is True

    leader = await cluster.wait_for_leader()
    removed = await metactl("member", "remove", leader, *at(cluster, leader))
    assert removed.out.splitlines()[0] == f"node {leader} is no longer a member", "asked at the leader itself"
    await cluster.kill(leader)
    left = sorted(set(cluster.nodes) - {leader})
    assert sorted(await members(cluster, left[0])) == left
    assert (
        "is no member; the members are" in (await metactl("member", "remove", leader, *at(cluster, left[0]), code=1)).err
    )

    lost = next(node_id for node_id in left if node_id != left[0])
    assert (
        "answers: add the new node under another id first"
        in (await metactl("member", "replace", lost, *at(cluster, left[0]), code=1)).err
    )
    await cluster.kill(lost)
    cluster.wipe(lost)
    node, file = cluster.nodes[lost], tmp_path / "replaced.toml"
    flags = ["--new-grpc-address", node.grpc, "--new-admin-address", node.admin, "--new-raft-dir", node.raft_dir]
    waiting = asyncio.create_task(
        metactl("member", "replace", lost, *at(cluster, left[0]), *flags, "--config-out", file, "--wait", 60)
    )
    await cluster.wait_until(lambda: file.exists() or waiting.done(), "the configuration of the new node")
    start_from(cluster, lost, file)
    ran: Ran = await waiting
    assert ran.out.splitlines()[0] == f"node {lost} is no longer a member"
    assert f"node {lost} is a member, ready and level" in ran.err
    assert sorted(await members(cluster, left[0])) == left
