"""The logs of three nodes tell the story of what happened: a killed leader, a planned transfer, a lost majority.

Read as an operator reads them: each line has a level, a node and a term, and the lines of a node are in order.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from metasrv.testing.processes import ProcessCluster

LINE = re.compile(
    r"^\S+ (?P<level>\w+) (?P<logger>[\w.]+): (?P<text>.*?)"
    r"(?: node=(?P<node>\d+) term=(?P<term>\d+)(?: request_id=\S+)?)?$"
)


class Line(NamedTuple):
    level: str
    logger: str
    text: str
    node: int | None
    term: int | None


class Story:
    """What the nodes have written since it began."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self._read = {node_id: len(node.output()) for node_id, node in cluster.nodes.items()}

    def lines(self, node_id: int) -> list[Line]:
        output = self._cluster.nodes[node_id].output()[self._read[node_id] :]
        found = filter(None, map(LINE.match, output.splitlines()))
        return [
            Line(line["level"], line["logger"], line["text"], _number(line["node"]), _number(line["term"]))
            for line in found
        ]

    def told(self, node_id: int, *patterns: str) -> bool:
        """Whether the patterns occur in this order, each in a line of its own with the node's number and a term."""
        lines = iter(self.lines(node_id))
        return all(
            any(re.search(pattern, line.text) and line.node == node_id and line.term is not None for line in lines)
            for pattern in patterns
        )

    async def wait(self, node_id: int, *patterns: str) -> None:
        await self._cluster.wait_until(
            lambda: self.told(node_id, *patterns), f"node {node_id} to tell, in this order: {patterns}", 15.0
        )

    def warnings(self, node_id: int) -> list[str]:
        return [line.text for line in self.lines(node_id) if line.level not in ("INFO", "DEBUG")]


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


async def test_the_logs_tell_of_a_transfer_a_killed_leader_and_a_lost_majority() -> None:
    async with ProcessCluster(3, settings={"heartbeat_interval": 600}) as cluster:
        await cluster.boot()
        await cluster.wait_for_ready()
        assert "\x1b" not in "".join(node.output() for node in cluster.nodes.values())
        old = await cluster.wait_for_leader()
        new = await _transfer_is_none_to_worry_about(cluster, old)
        survivor = await _killed_leader(cluster, new)
        await _lost_majority(cluster, survivor)


async def _transfer_is_none_to_worry_about(cluster: ProcessCluster, old: int) -> int:
    story = Story(cluster)
    target = min(node_id for node_id in cluster.nodes if node_id != old)
    status, _ = await cluster.admin(old, f"/v1/ctrl/trigger_transfer_leader?to={target}")
    assert status == 200
    assert await cluster.wait_for_leader(other_than=old) == target
    third = next(node_id for node_id in cluster.nodes if node_id not in (old, target))
    await story.wait(
        old, f"leadership goes to node {target}", f"node {old} no longer leads: it hands over to node {target}"
    )
    await story.wait(
        target, f"node {target} stands in term .*: leader {old} hands over to it", f"node {target} leads .* handed over"
    )
    for follower in (old, third):
        await story.wait(follower, f"node {follower} votes for node {target} .*: the leader hands over to it")
        await story.wait(follower, f"node {target} leads in term")
    assert {node_id: story.warnings(node_id) for node_id in cluster.nodes} == {1: [], 2: [], 3: []}
    terms = {line.term for line in story.lines(target) if line.text.startswith(f"node {target} leads")}
    assert len(terms) == 1
    assert terms != {None}
    return target


async def _killed_leader(cluster: ProcessCluster, leader: int) -> int:
    story = Story(cluster)
    await cluster.kill(leader)
    new = await cluster.wait_for_leader(other_than=leader)
    other = next(node_id for node_id in cluster.running() if node_id != new)
    lost = f"(the connection of leader {leader} was lost|leader {leader} not heard for [0-9,]+ ms)"
    await story.wait(
        new,
        f"the connection to node {leader} ended",
        f"node {new} begins an election: {lost}",
        f"node {new} stands in term",
        f"node {new} leads in term .*, elected by nodes {min(new, other)}, {max(new, other)}; {lost}",
        f"node {leader} not heard for [0-9,]+ ms: one more failure stops the cluster",
    )
    await story.wait(new, f"node {other} votes for node {new} in term")
    await story.wait(
        other,
        f"the connection to node {leader} ended",
        f"node {other} votes for node {new} in term .*: {lost}",
        f"node {new} leads in term",
    )
    return new


async def _lost_majority(cluster: ProcessCluster, leader: int) -> None:
    story = Story(cluster)
    other = next(node_id for node_id in cluster.running() if node_id != leader)
    await cluster.kill(other)
    await story.wait(leader, f"node {leader} no longer leads", "1 of 3 voters heard, writes are refused")
    said = [line for line in story.lines(leader) if line.text.endswith("1 of 3 voters heard, writes are refused")]
    assert [line.level for line in said] == ["ERROR"], "once, not with every attempt"
    cluster.start(other)
    await cluster.wait_for_leader()
    await story.wait(leader, "too few were heard for [0-9.]+ s", "node . leads in term")
