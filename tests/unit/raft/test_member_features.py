"""Which features members know: what a release says that knows the question, and what stands for one that does not."""

from __future__ import annotations

import pytest

from metasrv.model.errors import InvalidRequestError, MembershipError, NoLeaderError, UnknownOutcomeError
from metasrv.model.types import Endpoint, Node
from metasrv.raft.member_features import EARLIER_FEATURES, known_by, refuse_ignorant

JOINING = Node(4, Endpoint("127.0.0.1", 28104), "127.0.0.1:9194", None)
ALL = frozenset({"dummy", "dummy_feature2", "users"})


class Nodes:
    """Answers for each target with what it knows, or raises the error that asking it ends with."""

    def __init__(self, answers: dict[int | Endpoint, frozenset[str] | Exception]) -> None:
        self.answers = answers
        self.asked: list[int | Endpoint] = []

    async def features(self, target: int | Endpoint, timeout_ms: int) -> frozenset[str]:
        assert timeout_ms > 0
        self.asked.append(target)
        answer = self.answers[target]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_each_member_answers_for_its_release() -> None:
    refused = InvalidRequestError("a peer asked for 'features', which this version of metasrv does not know")
    nodes = Nodes({1: ALL, 2: refused, 3: NoLeaderError(), 5: UnknownOutcomeError("no answer in time")})
    assert await known_by(nodes.features, [1, 2, 3, 5]) == {1: ALL, 2: EARLIER_FEATURES, 3: None, 5: None}


async def test_a_node_that_does_not_know_what_is_on_does_not_join() -> None:
    nodes = Nodes({JOINING.endpoint: EARLIER_FEATURES})
    await refuse_ignorant(nodes.features, JOINING, ())
    assert nodes.asked == [], "nobody is asked while nothing is on"
    await refuse_ignorant(nodes.features, JOINING, ("dummy",))
    with pytest.raises(MembershipError, match=r"node 4 cannot join: .* \(users\); start it with the release"):
        await refuse_ignorant(nodes.features, JOINING, ("dummy", "users"))
    nodes.answers[JOINING.endpoint] = ALL
    await refuse_ignorant(nodes.features, JOINING, ("dummy", "users"))
    nodes.answers[JOINING.endpoint] = NoLeaderError()
    await refuse_ignorant(nodes.features, JOINING, ("dummy", "users"))
