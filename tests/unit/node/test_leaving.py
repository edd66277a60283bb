"""The one-shot request that removes a node: whom it asks, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from metasrv.model.errors import LeaveError, LeaveSelfError, PeerUnreachableError, RequestError
from metasrv.model.types import Endpoint
from metasrv.node.joining import leave_cluster


class Cluster:
    """Answers each address with what is prepared for it."""

    def __init__(self, answers: dict[str, RequestError | None]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def leave(self, target: Endpoint, node_id: int, timeout_ms: int, hops: int) -> None:
        del node_id, timeout_ms, hops
        self.asked.append(str(target))
        answer = self._answers[str(target)]
        if answer is not None:
            raise answer


async def test_a_leader_that_shall_remove_itself_is_not_asked_again_whatever_its_sentence_says() -> None:
    refusal = LeaveSelfError(3)
    refusal.args = ("reworded",)
    cluster: Any = Cluster({"a:1": refusal, "b:2": refusal})
    with pytest.raises(LeaveError, match=r'^fail to leave 3 cluster via \["a:1", "b:2"\].*a:1: reworded; b:2: reworded$'):
        await leave_cluster(cluster, 3, ["a:1", "b:2"])
    assert cluster.asked == ["a:1", "b:2"]


@pytest.mark.virtual_time
async def test_an_address_that_the_error_names_itself_stands_there_once() -> None:
    unreachable = PeerUnreachableError("a:1 cannot be reached: Connection refused")
    cluster: Any = Cluster({"a:1": unreachable})
    with pytest.raises(LeaveError) as raised:
        await leave_cluster(cluster, 3, ["a:1"])
    assert str(raised.value).endswith(f"errors: {'; '.join([str(unreachable)] * 3)}")


async def test_the_first_address_that_agrees_is_enough() -> None:
    cluster: Any = Cluster({"a:1": LeaveSelfError(3), "b:2": None})
    await leave_cluster(cluster, 3, ["a:1", "b:2", "c:3"])
    assert cluster.asked == ["a:1", "b:2"]
