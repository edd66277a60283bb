"""A one-shot leave request: which addresses are asked, how often, and how it ends."""

from __future__ import annotations

from typing import cast

import pytest

from metasrv.model.errors import LeaveError, LeaveSelfError, RequestError
from metasrv.model.types import Endpoint
from metasrv.node.joining import leave_cluster
from metasrv.raft.forwarding import Forwarding

FIRST, SECOND = "127.0.0.1:28103", "127.0.0.1:28104"


class ScriptedForwarding:
    """Answers each address with one error, or with success."""

    def __init__(self, errors: dict[str, RequestError | None]) -> None:
        self._errors = errors
        self.asked: list[str] = []

    async def leave(self, target: Endpoint, node_id: int, timeout_ms: int, hops: int) -> None:
        self.asked.append(str(target))
        error = self._errors[str(target)]
        if error is not None:
            raise error


async def leave_through(errors: dict[str, RequestError | None]) -> list[str]:
    forwarding = ScriptedForwarding(errors)
    await leave_cluster(cast(Forwarding, forwarding), 1, list(errors))
    return forwarding.asked


async def test_the_next_address_is_asked_at_once_when_the_leader_would_remove_itself() -> None:
    assert await leave_through({FIRST: LeaveSelfError(1), SECOND: None}) == [FIRST, SECOND]


async def test_a_refusal_names_the_addresses_and_their_reasons() -> None:
    with pytest.raises(LeaveError) as refused:
        await leave_through({FIRST: LeaveSelfError(1)})
    reason = "fail to leave: can not leave id=1 via itself, source: leave-via-self"
    assert str(refused.value) == f'fail to leave 1 cluster via ["{FIRST}"], caused by errors: {FIRST}: {reason}'
