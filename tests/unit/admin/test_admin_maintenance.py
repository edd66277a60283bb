"""The routes of maintenance: who may, what they answer, and what the status says then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.admin.schemas import CompactionSchema, DrainSchema, LimitsSchema, StatusSchema
from metasrv.config.model import Config, RaftConfig
from metasrv.model.commands import SetFeature, SetQuota, SetReadOnly
from metasrv.model.errors import NoLeaderError, NotDoneError, StoppingError, UnknownOutcomeError
from metasrv.model.limits import READ_ONLY_REASON_CHARACTERS_MAX
from metasrv.node.quota_keeper import QuotaKeeper
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, leader_status, sample_status

HEADERS = {"X-Metasrv-Action": "test"}


class Admin:
    """The admin API of one node, and its state."""

    def __init__(self, tmp_path: Path) -> None:
        self.machine = StateMachine.open(str(tmp_path / "state.db"))
        config = Config(raft_config=RaftConfig(raft_dir=str(tmp_path), quota_bytes=1000))
        self.context, self.consensus = fake_context(self.machine, config, leader_status(), commits=True)
        transport = httpx.ASGITransport(create_app(self.context))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)

    async def post(self, path: str, **query: str) -> httpx.Response:
        return await self.client.post(f"/v1/ctrl/{path}", params=query)

    async def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get("/v1/cluster/status")).json()
        StatusSchema.model_validate(answer)
        return answer

    async def turn_on(self) -> None:
        await self.consensus.propose(SetFeature("write-limits", True), 1000)


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    one = Admin(tmp_path)
    yield one
    await one.client.aclose()
    one.machine.close()


async def test_the_switch_needs_the_feature_and_is_in_the_status(admin: Admin) -> None:
    answer = await admin.post("read_only", on="true")
    assert (answer.status_code, "set-feature --feature write-limits" in answer.text) == (409, True)
    await admin.turn_on()
    answer = await admin.post("read_only", on="true", reason="moving")
    assert answer.json() == {"read_only": True, "reason": "moving", "quota_bytes": None}
    LimitsSchema.model_validate(answer.json())
    status = await admin.status()
    assert status["read_only"] == {"reason": "moving", "since_ms": admin.machine.last_time_ms}
    answer = await admin.post("read_only", on="false", reason="no matter")
    assert answer.json()["read_only"] is False
    assert (await admin.status())["read_only"] is None
    assert admin.consensus.proposals[-2:] == [SetReadOnly("moving"), SetReadOnly(None)]


@pytest.mark.parametrize("query", [{}, {"on": "yes"}, {"reason": "x"}, {"on": "true", "reason": "x" * 201}])
async def test_a_switch_that_says_too_little_or_too_much_is_refused(admin: Admin, query: dict[str, str]) -> None:
    assert READ_ONLY_REASON_CHARACTERS_MAX == 200
    await admin.turn_on()
    answer = await admin.post("read_only", **query)
    assert answer.status_code == 400
    assert answer.text


@pytest.mark.parametrize("error", [NoLeaderError(), UnknownOutcomeError("it may still take effect")])
async def test_a_switch_that_is_not_committed_is_said(admin: Admin, error: Exception) -> None:
    await admin.turn_on()
    admin.consensus.failure = error
    answer = await admin.post("read_only", on="true")
    assert (answer.status_code, answer.json()["detail"]) == (500, str(error))


@pytest.mark.parametrize("path", ["read_only?on=true", "drain?on=true", "compact"])
async def test_only_a_post_of_a_program_does_anything(admin: Admin, path: str) -> None:
    assert (await admin.client.get(f"/v1/ctrl/{path}")).status_code == 405
    del admin.client.headers["X-Metasrv-Action"]
    assert (await admin.client.post(f"/v1/ctrl/{path}")).status_code == 403
    assert admin.consensus.asked == []


async def test_a_drain_names_its_node_and_may_be_refused(admin: Admin) -> None:
    answer = await admin.post("drain", on="true", id="2")
    assert (answer.status_code, answer.json()["detail"].startswith("this is node 1, not node 2")) == (409, True)
    assert (await admin.post("drain")).status_code == 400
    answer = await admin.post("drain", on="true", id="1")
    DrainSchema.model_validate(answer.json())
    assert (await admin.status())["drained"] is True
    assert (await admin.post("drain", on="false")).json() == {"id": 1, "drained": False}
    assert (await admin.status())["drained"] is False
    admin.consensus.failure = NotDoneError("nobody else can lead")
    assert (await admin.post("drain", on="true")).status_code == 409
    admin.consensus.failure = StoppingError()
    assert (await admin.post("drain", on="true")).status_code == 500


async def test_a_compaction_begins_and_the_status_says_how_far_it_is(admin: Admin) -> None:
    assert (await admin.status())["compaction"] is None
    answer = await admin.post("compact")
    CompactionSchema.model_validate(answer.json())
    assert (await admin.status())["compaction"]["step"] == "done"


# ----------------------------------------------------------------------------- quota


async def test_the_leaders_quota_becomes_the_clusters(admin: Admin) -> None:
    keeper = QuotaKeeper(admin.context)
    await keeper.look()
    await keeper.look()
    assert admin.consensus.proposals == [], "the feature is off"
    await admin.turn_on()
    admin.consensus.current = sample_status()
    await keeper.look()
    assert admin.machine.limits.quota_bytes == 0, "this node does not lead"
    admin.consensus.current = leader_status()
    admin.consensus.failure = UnknownOutcomeError("it may still take effect")
    await keeper.look()
    admin.consensus.failure = None
    await keeper.look()
    await keeper.look()
    assert (await admin.status())["quota_bytes"] == 1000
    assert admin.consensus.proposals.count(SetQuota(1000)) == 2, "and no more once it is there"
